"""What work will cost before it is done, from shapes alone: operations, bytes, memory and time."""

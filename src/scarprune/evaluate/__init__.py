"""What a model's loss is: dense, masked or cut."""

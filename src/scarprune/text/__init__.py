"""From text sources to blocks of token ids."""

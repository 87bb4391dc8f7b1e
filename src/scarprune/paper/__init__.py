"""arXiv 2604.23475: its models and numbers, its protocol as its code has it, and its claims."""

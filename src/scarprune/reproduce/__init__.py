"""The programme of arXiv 2604.23475: presets, its own protocol, and what both protocols give."""

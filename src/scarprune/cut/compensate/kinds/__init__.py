"""The compensations, one file each."""

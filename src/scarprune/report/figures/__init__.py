"""The figures: one file each, found by being here."""

"""Statistics that single scores need beyond the common sums: one file each, found by being here."""

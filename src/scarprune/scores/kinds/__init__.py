"""The built-in scores: one small file per kin with its ``SCORES``, found by being here."""

"""NumPy alone: selection, concentration, overlap and standard errors, of arrays and nothing else."""

"""Statistics of arrays and nothing else: selection, concentration, overlap, ranks, intervals."""

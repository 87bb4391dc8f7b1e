"""Plans: which channels of each site are kept."""

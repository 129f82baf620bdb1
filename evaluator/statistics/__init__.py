"""Pure functions of numpy arrays: comparisons, corrections, ranks."""

"""The law of repeats, fitted to the runs of a study."""

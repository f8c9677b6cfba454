"""Exchange in, a score at every token out: segments, readings, the backbone, the scorers, their calibration."""

"""The cells of `benchmarks/ablations.py`, one file a question."""

"""Serving without HTTP: scores to verdicts to actions, text held back until it is scored, guards as folders."""

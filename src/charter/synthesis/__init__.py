"""A constitution becomes labelled examples, in eight stages that `build.py` lists. Never imports torch."""

"""A constitution becomes labelled examples, in the stages that `build.py` lists. Never imports torch."""

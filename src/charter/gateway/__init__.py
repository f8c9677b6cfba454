"""The HTTP face of a guard: an OpenAI-compatible endpoint in front of another, from which nothing unscored ever leaves."""

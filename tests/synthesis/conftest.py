"""A small constitution with recorded generations, and a teacher that is scripted."""

from kitchen import constitution, model_server, recordings

__all__ = ["constitution", "model_server", "recordings"]

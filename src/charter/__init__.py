"""Charter: from a constitution in plain language to a classifier that guards any language model token by token."""

__version__ = "0.1.0"

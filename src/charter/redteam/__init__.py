"""Red teaming as data: attacks on the current guard become training examples, and held-out families measure what that teaches."""

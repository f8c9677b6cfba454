"""What will still get through at deployment scale: tails of elicitation probabilities, and mitigation-aware statistics of small trials."""

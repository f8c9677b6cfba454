"""What a guard catches, what it wrongly refuses, how it streams and what it costs: each figure with its n, interval and seed."""

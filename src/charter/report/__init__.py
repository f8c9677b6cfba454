"""One self-contained page that shows what an evaluation found, and what may not be concluded from it."""

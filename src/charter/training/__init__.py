"""Examples to scorers: the activation pass, the losses, the fits, and the guard that comes out."""

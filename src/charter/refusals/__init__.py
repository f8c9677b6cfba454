"""What a reply did and why: refused, partly refused or complied; could not, or should not."""

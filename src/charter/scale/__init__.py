"""The same stages on a cluster: what is written does not depend on how many machines write it."""

"""What `benchmarks/gateway.py` is made of: servers, peers in environments of their own, and one file for each thing that is measured."""

"""How fast the worker is beside the least that its backends cost: `python -m benchmarks`, or `make bench`."""

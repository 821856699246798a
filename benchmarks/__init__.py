"""How fast it is: `python -m benchmarks.run --output bench.json`, or `make bench`."""

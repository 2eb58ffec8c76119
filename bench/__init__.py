"""Benchmarks, run by hand: `python -m bench.serve` prints one table against the peers."""

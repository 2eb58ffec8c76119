"""Benchmarks, run by hand: `python -m bench.serve` against peers, `python -m bench.train` against bare parts."""

"""Benchmarks, one a file: items become pairs to score, scores become metrics."""

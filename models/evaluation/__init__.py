"""Benchmarks, one per file: items become pairs to score, and scores become metrics (decision 13)."""

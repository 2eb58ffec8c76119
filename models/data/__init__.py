"""Training data: readers of common formats, checks, order, hard negatives and loading."""

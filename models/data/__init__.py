"""Training data: readers of the formats that people have, checks, order, hard negatives and loading."""

"""The demo world: a generator of small scenes with captions, and the weights trained on it."""

"""References, and what they name: open_clip's and transformers' checkpoints, weights files and deltas."""

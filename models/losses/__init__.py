"""The losses of fine-tuning, one file an idea. All are pure: randomness comes in as arguments."""

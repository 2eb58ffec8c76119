"""The losses of fine-tuning, one file per idea. All are pure: randomness is passed in as arguments."""

"""Fine-tuning and evaluation jobs: what may become of one, and when."""

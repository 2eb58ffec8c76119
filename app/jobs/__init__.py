"""Fine-tuning and evaluation jobs: submission, validation, control and events."""

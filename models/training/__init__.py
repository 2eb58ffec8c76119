"""Fine-tuning: from a configuration to a delta, resumable at any step."""

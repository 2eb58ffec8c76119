"""A CLIP in memory: its network, tokenizer and preprocessing, its precision, and how it encodes and scores."""

"""The HTTP service: matching, classification and embedding from a CLIP checkpoint."""

"""Embeddings of many images in one file: made from a folder, continued after a kill, and searched (decision 62)."""

"""Versions as other libraries read them: open_clip, transformers and ONNX, with a model card, and the way back."""

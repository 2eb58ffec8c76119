"""Embeddings of a Hugging Face `CLIPModel` folder, run inside the peer's own environment.

Reads `{"folder", "images", "texts", "out"}` from standard input and writes an `.npz` with
L2-normalised `images` and `texts`.
"""

import json
import sys

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor


def main() -> None:
    """Embed with the processor and the model that the peer itself would load."""
    task = json.load(sys.stdin)
    model = AutoModel.from_pretrained(task["folder"]).eval()
    processor = AutoProcessor.from_pretrained(task["folder"])
    with torch.inference_mode():
        pixels = processor(images=[Image.open(path) for path in task["images"]], return_tensors="pt")
        tokens = processor(text=task["texts"], return_tensors="pt", padding=True)
        image_features = model.get_image_features(**pixels)
        text_features = model.get_text_features(**tokens)
    np.savez(
        task["out"],
        images=torch.nn.functional.normalize(image_features, dim=-1).numpy(),
        texts=torch.nn.functional.normalize(text_features, dim=-1).numpy(),
    )


if __name__ == "__main__":
    main()

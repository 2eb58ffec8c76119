"""One random ViT-B-32, saved twice: as open_clip's `local-dir:` and as a Hugging Face `CLIPModel` folder."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import T5Tokenizer

from sds_clip.models.export.write import export_full

ARCHITECTURE = "ViT-B-32"
SEED = 0


def make_open_clip(folder: Path, architecture: str = ARCHITECTURE) -> Path:
    """Save the random model as `open_clip_config.json` and `open_clip_model.safetensors`, once.

    open_clip initialises LayerNorms to one and biases to zero. They are moved off those values here, so that
    a conversion that mixes them up, or a server that drops them, gives different embeddings.
    """
    weights = folder / "open_clip_model.safetensors"
    if not weights.exists():
        torch.manual_seed(SEED)
        model = open_clip.create_model(architecture, precision="fp32")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 and name != "visual.class_embedding":
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "model_cfg": open_clip.get_model_config(architecture),
            "preprocess_cfg": model.visual.preprocess_cfg,
        }
        if "hf_tokenizer_name" in config["model_cfg"]["text_cfg"]:  # open_clip has no such tokenizer itself
            t5_tokenizer().save_pretrained(folder)
        (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    return folder


def t5_tokenizer() -> T5Tokenizer:
    """A tokenizer of single letters, with T5's class."""
    letters = [chr(97 + place) for place in range(26)]
    pieces = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>", "\u2581", *letters)]
    return T5Tokenizer(pieces, extra_ids=0, model_max_length=512)


def make_huggingface(source: Path, folder: Path) -> Path:
    """Save the same weights, tokenizer and preprocessing in Hugging Face's layout, once."""
    if not folder.exists():
        export_full(f"local-dir:{source}", folder, format="transformers")
    return folder


def open_clip_features(folder: Path, images: list[Path]) -> np.ndarray:
    """open_clip's own float32 embeddings, L2-normalised: the reference for every server."""
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, precision="fp32")
    model.eval()
    with torch.inference_mode():
        rows = [
            model.encode_image(torch.stack([preprocess(Image.open(path)) for path in part]), normalize=True)
            for part in (images[start : start + 32] for start in range(0, len(images), 32))
        ]
    return torch.cat(rows).numpy()

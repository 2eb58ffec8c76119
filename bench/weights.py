"""One random ViT-B-32, saved twice: as open_clip's `local-dir:` and as a Hugging Face `CLIPModel` folder."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file, save_file

from sds_clip.models.checkpoints.transformers_names import CLIP

ARCHITECTURE = "ViT-B-32"
SEED = 0


def make_open_clip(folder: Path) -> Path:
    """Save the random model as `open_clip_config.json` and `open_clip_model.safetensors`, once.

    open_clip initialises LayerNorms to one and biases to zero. They are moved off those values here, so that
    a conversion that mixes them up, or a server that drops them, gives different embeddings.
    """
    weights = folder / "open_clip_model.safetensors"
    if not weights.exists():
        torch.manual_seed(SEED)
        model = open_clip.create_model(ARCHITECTURE, precision="fp32")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 and name != "visual.class_embedding":
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        config = {
            "model_cfg": open_clip.get_model_config(ARCHITECTURE),
            "preprocess_cfg": model.visual.preprocess_cfg,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    return folder


def make_huggingface(source: Path, folder: Path) -> Path:
    """Save the same weights, tokenizer and preprocessing in Hugging Face's layout, once."""
    weights = folder / "model.safetensors"
    if not weights.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((source / "open_clip_config.json").read_text())
        write_tokenizer(folder, config["model_cfg"]["text_cfg"]["context_length"])
        (folder / "config.json").write_text(json.dumps(huggingface_config(config["model_cfg"]), indent=2))
        preprocessor = huggingface_preprocessor(config["preprocess_cfg"])
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
        tensors = CLIP.to_transformers(load_file(source / "open_clip_model.safetensors"))
        stored = {name: value.contiguous() for name, value in tensors.items()}
        save_file(stored, weights, metadata={"format": "pt"})
    return folder


def huggingface_config(model: dict[str, object]) -> dict[str, object]:
    """An open_clip ViT's configuration as `CLIPConfig`."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    assert isinstance(vision, dict)
    assert isinstance(text, dict)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    common = {"hidden_act": activation, "projection_dim": model["embed_dim"], "layer_norm_eps": 1e-5}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "torch_dtype": "float32",
        "vision_config": {
            **common,
            "model_type": "clip_vision_model",
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        "text_config": {
            **common,
            "model_type": "clip_text_model",
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
        },
    }


def huggingface_preprocessor(preprocess: dict[str, object]) -> dict[str, object]:
    """A `CLIPImageProcessor` equivalent to open_clip's inference transform: PIL resize, crop, normalise."""
    size = preprocess["size"]
    assert isinstance(size, list)
    assert preprocess["interpolation"] == "bicubic"
    assert preprocess["resize_mode"] == "shortest"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size[0]},
        "resample": int(Image.Resampling.BICUBIC),
        "do_center_crop": True,
        "crop_size": {"height": size[0], "width": size[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess["mean"],
        "image_std": preprocess["std"],
    }


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


def write_tokenizer(folder: Path, context_length: int) -> None:
    """Write CLIP's own vocabulary and merges as files of transformers' CLIPTokenizer."""
    tokenizer = SimpleTokenizer()
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = dict(tokenizer.encoder)
    vocabulary[start] = vocabulary.pop("<start_of_text>")
    vocabulary[end] = vocabulary.pop("<end_of_text>")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.bpe_ranks)]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context_length, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

"""A small SigLIP of the demo world, trained as the demo's student is: `python -m sds_clip.demo.siglip DIR`.

It has a tower of timm, sigmoids in place of softmaxes, and the student's tokenizer and pictures.
docs/experiments/students.md says what it learns from the demo's teacher.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file
from torch import nn

from sds_clip.demo.options import count, parser_of, run
from sds_clip.demo.student import preprocess_config, sines_and_cosines
from sds_clip.demo.train_student import Recipe, train_student
from sds_clip.demo.validation import load_validation
from sds_clip.demo.world import IMAGE_SIZE_PX
from sds_clip.models.atomic import atomic_folder

STUDENT = Path(__file__).parent / "student"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CONTEXT_LENGTH = 20  # no caption has more tokens, and every token of a text is computed here
TEXT_WIDTH = 128


def model_config(vocab_size: int) -> dict[str, Any]:
    """The architecture as in `open_clip_config.json`, 1.2 million parameters."""
    return {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": IMAGE_SIZE_PX,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": "demo-tokenizer",
            "width": TEXT_WIDTH,
            "heads": 4,
            "layers": 4,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    }


def new_siglip(vocab_size: int) -> CustomTextCLIP:
    """A SigLIP with fresh weights. Words and positions start at one scale, as the student's do."""
    arguments = {key: value for key, value in model_config(vocab_size).items() if key != "custom_text"}
    network = CustomTextCLIP(**arguments)
    text: Any = network.text
    nn.init.normal_(text.token_embedding.weight, std=TEXT_WIDTH**-0.5)
    with torch.no_grad():
        positions = sines_and_cosines(CONTEXT_LENGTH, TEXT_WIDTH)
        text.positional_embedding.copy_((2 / TEXT_WIDTH) ** 0.5 * positions)
    return network


def save_siglip(network: CustomTextCLIP, folder: Path) -> None:
    """Write an open_clip `local-dir:` folder in float32."""
    text: Any = network.text
    config = {"model_cfg": model_config(text.vocab_size), "preprocess_cfg": preprocess_config()}
    with atomic_folder(folder) as unfinished:
        save_file(network.state_dict(), unfinished / "open_clip_model.safetensors")
        (unfinished / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
        for name in TOKENIZER_FILES:
            shutil.copy(STUDENT / name, unfinished)


def build(folder: Path, recipe: Recipe) -> None:
    """Train a SigLIP and save it; an interrupted training continues."""
    tokenizer = HFTokenizer(str(STUDENT), context_length=CONTEXT_LENGTH)
    work_dir = folder.with_name(f"{folder.name}-training")
    trained = train_student(recipe, tokenizer, load_validation(tokenizer), work_dir, new=new_siglip)
    assert isinstance(trained, CustomTextCLIP)
    save_siglip(trained, folder)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="Folder into which it is written.")
    parser.add_argument(
        "--steps", type=count, default=Recipe.steps, help="Training steps (default: %(default)s)."
    )
    options = parser.parse_args()
    build(options.folder, replace(Recipe(), steps=options.steps))


if __name__ == "__main__":
    run(main)

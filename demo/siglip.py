"""A small SigLIP for the demo world: `python -m sds_clip.demo.siglip DIR` writes it, and pairs to train it on.

    DIR/siglip/   an open_clip `local-dir:` folder: untrained: a timm tower, sigmoids, and the demo student's tokenizer
    DIR/pairs/    an image folder

docs/experiments/siglip.md has the commands that train it, distil the demo's teacher into it, and serve it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file
from torch import nn

from sds_clip.demo.folders import write_image_folder
from sds_clip.demo.options import count, parser_of, run
from sds_clip.demo.student import preprocess_config, sines_and_cosines
from sds_clip.demo.tokenizer import CONTEXT_LENGTH
from sds_clip.demo.training_set import DemoPairs

STUDENT = Path(__file__).parent / "student"
IMAGE_SIZE_PX = 160  # the tower's own
PRETRAINING_SEED = 3000


def model_config() -> dict[str, Any]:
    """The architecture as in `open_clip_config.json`, 1.2 million parameters."""
    student = json.loads((STUDENT / "open_clip_config.json").read_text())["model_cfg"]
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
            "vocab_size": student["text_cfg"]["vocab_size"],
            "hf_tokenizer_name": "demo-tokenizer",
            "width": 128,
            "heads": 4,
            "layers": 4,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    }


def write_siglip(folder: Path, *, seed: int = 0) -> None:
    """Write the SigLIP with fresh weights. Words and positions start at one scale, as the demo student's do."""
    config = model_config()
    arguments = {key: value for key, value in model_config().items() if key != "custom_text"}
    torch.manual_seed(seed)
    network = CustomTextCLIP(**arguments)
    text: Any = network.text
    width = config["text_cfg"]["width"]
    nn.init.normal_(text.token_embedding.weight, std=width**-0.5)
    with torch.no_grad():
        text.positional_embedding.copy_((2 / width) ** 0.5 * sines_and_cosines(CONTEXT_LENGTH, width))
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = preprocess_config() | {"size": IMAGE_SIZE_PX}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STUDENT / name, folder)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="Folder into which both are written.")
    parser.add_argument("--pairs", type=count, default=16_384, help="Number of pairs (default: %(default)s).")
    options = parser.parse_args()
    write_siglip(options.folder / "siglip")
    write_image_folder(options.folder / "pairs", DemoPairs(options.pairs, PRETRAINING_SEED))


if __name__ == "__main__":
    run(main)

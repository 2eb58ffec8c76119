"""Read transformers' CLIP: its weights under open_clip's names, and what its folder states beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor
from transformers import CLIPConfig, CLIPVisionConfig

from sds_clip.models.checkpoints.transformers_names import CLIP
from sds_clip.models.errors import CheckpointError, first_line
from sds_clip.models.files import read_object

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""An image processor's `resample`, in Pillow's numbers, and open_clip's name for it."""
_REMEDY = "download it again"


@dataclass(frozen=True)
class Stated:
    """What a folder of transformers says of its CLIP and the weights do not show."""

    config: CLIPConfig | CLIPVisionConfig
    file: Path

    @property
    def towers(self) -> dict[str, Any]:
        """The configuration of each tower by the name of its part of open_clip's configuration."""
        if isinstance(self.config, CLIPVisionConfig):
            return {"vision_cfg": self.config}
        return {"vision_cfg": self.config.vision_config, "text_cfg": self.config.text_config}

    @property
    def quick_gelu(self) -> bool:
        return bool(self.towers["vision_cfg"].hidden_act == "quick_gelu")

    def preprocess(self) -> dict[str, Any] | None:
        """Return the preprocessing that the folder states, if any.

        Raises CheckpointError if it is none that open_clip has.
        """
        file = self.file.with_name("preprocessor_config.json")
        return _preprocess(read_object(file, CheckpointError, _REMEDY), file) if file.is_file() else None

    def check(self, model_config: dict[str, Any], name: str) -> None:
        """Raise CheckpointError if open_clip's configuration, that of `name`, says something else."""
        activation = "quick_gelu" if model_config.get("quick_gelu") else "gelu"
        vision, text = CLIPVisionCfg(**model_config["vision_cfg"]), CLIPTextCfg(**model_config["text_cfg"])
        heads = {"vision_cfg": vision.width // vision.head_width, "text_cfg": text.heads}
        for tower, config in self.towers.items():
            eps = (model_config[tower].get("norm_kwargs") or {}).get("eps", 1e-5)
            needed = {"hidden_act": activation, "num_attention_heads": heads[tower], "layer_norm_eps": eps}
            for key, value in needed.items():
                stated = getattr(config, key)
                if stated != value:
                    raise CheckpointError(
                        f"{self.file} states {key} {stated} for the {tower.removesuffix('_cfg')} tower, but {name} "
                        f"has {value}. The weights do not show which is right, and the wrong one gives wrong scores "
                        "without an error. Choose the architecture or base that the weights belong to."
                    )
        if "text_cfg" in self.towers:
            _check_end_of_text(self.towers["text_cfg"], self.file)


def weights_file(folder: Path) -> Path:
    """Return the file of weights in a folder of transformers.

    Raises CheckpointError if there is none.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} has neither {' nor '.join(WEIGHT_FILES)}. Give a file of weights, or a folder in transformers' "
        "layout whose weights are one file."
    )


def is_transformers(weights: dict[str, Tensor]) -> bool:
    """Return whether a state dict has the names of one of transformers' two-tower models, or of its image tower."""
    return any(name.startswith(("vision_model.", "text_model.", "embeddings.")) for name in weights)


def open_clip_names(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights of a CLIPModel or an image tower under open_clip's names.

    Raises CheckpointError for another model than CLIP.
    """
    if "embeddings.class_embedding" in weights:  # CLIPVisionModel as transformers 5 stores it
        weights = {f"vision_model.{name}": value for name, value in weights.items()}
    # position_ids is a buffer, which transformers stored before 4.31
    stored = {name: value for name, value in weights.items() if not name.endswith(".position_ids")}
    renamed = CLIP.from_transformers(stored)
    others = [name for name in renamed if name.startswith(("vision_model.", "text_model."))]
    if others:
        raise CheckpointError(
            f"{path} holds another model of transformers than CLIP: it has {', '.join(others[:3])}. Only CLIPModel and "
            "CLIPVisionModel can be converted; SigLIP is published for open_clip too (ViT-SO400M-14-SigLIP/webli)."
        )
    return renamed


def stated_beside(file: Path) -> Stated | None:
    """Return what the configuration beside a file of weights states; None if there is no `config.json`.

    Raises CheckpointError if it is not one of a CLIP.
    """
    config_file = file.parent / "config.json"
    if not config_file.is_file():
        return None
    content = read_object(config_file, CheckpointError, _REMEDY)
    kinds = {"clip": CLIPConfig, "clip_vision_model": CLIPVisionConfig}
    kind = kinds.get(str(content.get("model_type")))
    if kind is None:
        raise CheckpointError(
            f"{config_file} has the model_type {content.get('model_type')!r}; only transformers' CLIP can be "
            f"converted ({', '.join(kinds)})."
        )
    try:
        return Stated(kind.from_dict(content), config_file)
    except Exception as error:  # transformers' own checks raise errors of many kinds
        raise CheckpointError(f"{config_file} cannot be read: {first_line(error)}.") from error


def _check_end_of_text(config: Any, file: Path) -> None:
    """Raise CheckpointError if the text feature is read elsewhere than at the largest token, as open_clip reads it.

    transformers reads it at the largest token too if the end of text is 2, which old configurations state.
    """
    if config.eos_token_id not in (2, config.vocab_size - 1):
        raise CheckpointError(
            f"{file} states eos_token_id {config.eos_token_id} with {config.vocab_size} tokens. open_clip reads the "
            "text feature at the last token of the vocabulary, so it would give other features. This model cannot be "
            "converted."
        )


def _preprocess(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the preprocessing of a CLIPImageProcessor: resize the shorter edge, crop the centre, normalise."""
    shorter = content.get("size")
    crop = content.get("crop_size")
    if not content.get("do_rescale", True) or abs(content.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise CheckpointError(
            f"{file} does not divide the pixels by 255. State the preprocessing with --preprocess."
        )
    sizes = {
        shorter.get("shortest_edge") if isinstance(shorter, dict) else shorter,
        *(crop.values() if isinstance(crop, dict) else [crop]),
    }
    steps = ("do_resize", "do_center_crop", "do_normalize")
    interpolation = INTERPOLATIONS.get(content.get("resample", 0))
    size = sizes.pop()
    same = isinstance(size, int) and not sizes
    if not same or interpolation is None or not all(content.get(step) for step in steps):
        raise CheckpointError(
            f"{file} does not resize the shorter edge, crop the centre to the same size and normalise, as CLIP does. "
            "State the preprocessing with --preprocess."
        )
    channels = {name: content.get(f"image_{name}") for name in ("mean", "std")}
    for name, values in channels.items():
        numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
        if not numbers or len(values or ()) != 3:
            raise CheckpointError(
                f"{file} does not state image_{name} as three numbers. State the preprocessing with --preprocess."
            )
    return channels | {"interpolation": interpolation, "resize_mode": "shortest", "size": size}

"""Write the factors of LoRA as an adapter of PEFT for transformers' CLIP or SigLIP, and read such an adapter.

adapter_config.json          rank and alpha, and the names of the layers
adapter_model.safetensors    lora_A [rank, in] and lora_B [out, rank] of each layer, under transformers' names
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sds_clip.models.checkpoints.delta import save_delta
from sds_clip.models.checkpoints.delta_file import base_of, read_delta
from sds_clip.models.checkpoints.load import check_finite, load_clip, source_of
from sds_clip.models.checkpoints.references import ADAPTER_FILE, Folder, expanded, is_delta, parse
from sds_clip.models.checkpoints.sources import Source
from sds_clip.models.clip.lora import is_factor, layers, merged
from sds_clip.models.clip.mixed import with_values
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.version import LORA_SCALE
from sds_clip.models.errors import CheckpointError, first_line
from sds_clip.models.export.model_card import name_of
from sds_clip.models.export.to_transformers import layer_names

TENSORS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_BASE_VERSION = "sds_clip_base_version"
_OTHER_KINDS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save", "rank_pattern",
    "alpha_pattern", "layer_replication", "trainable_token_indices", "target_parameters",
    "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
"""Options with which an adapter is more than one product, of one rank and scale, beside each weight."""
_PLAIN = (
    "Only plain LoRA is supported: one rank and one alpha for all layers, and nothing else trained. Merge the adapter "
    "into its model with PEFT, and convert the model."
)
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to start training that leave the base's weights as they are."""


def write_peft(folder: Path, clip: Clip, source: Source) -> None:
    """Write the adapter of a LoRA delta into an existing folder.

    Raises CheckpointError if the reference is no such delta, or transformers has no model for its base.
    """
    reference = parse(clip.reference)
    delta = None
    if isinstance(reference, Folder) and is_delta(expanded(reference.path)):
        delta = read_delta(expanded(reference.path))
    if delta is None or LORA_SCALE not in delta.tensors or not all(map(is_factor, delta.tensors)):
        raise CheckpointError(
            f"{clip.reference} does not consist of the factors of LoRA, so it is no adapter. Export it with another "
            "--format, as a whole model."
        )
    assert isinstance(reference, Folder)
    if isinstance(base := base_of(delta.folder), Folder) and is_delta(expanded(base.path)):
        raise CheckpointError(
            f"{clip.reference} lies over a delta, {base.path}, which no adapter of PEFT can name as its base. Export "
            "it with another --format, as a whole model."
        )
    tensors: dict[str, Tensor] = {}
    for name, theirs in layer_names(clip, source).items():
        for letter in "AB" if f"{name}.lora.A" in delta.tensors else "":
            parts = zip(theirs, delta.tensors[f"{name}.lora.{letter}"], strict=True)
            tensors |= {f"{_PREFIX}{each}.lora_{letter}.weight": part.clone() for each, part in parts}
    rank = next(len(value) for name, value in tensors.items() if ".lora_A." in name)
    alpha = 1.0 if reference.alpha is None else reference.alpha
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": name_of(base_of(delta.folder)),
        "r": rank,
        "lora_alpha": alpha * float(delta.tensors[LORA_SCALE]) * rank,
        "target_modules": sorted({_layer(name) for name in tensors}),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / ADAPTER_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / TENSORS_FILE, {"format": "pt", _BASE_VERSION: delta.about.base_version})


def import_peft(adapter: Path, out: Path, base: str) -> Path:
    """Save an adapter that was trained elsewhere as a delta over `base`, and return its folder.

    Raises CheckpointError if the adapter cannot be read, is of another kind, or belongs to another base.
    """
    clip = load_clip(base, device="cpu", precision="float32")
    config, tensors = _read(adapter, clip)
    factors = _factors(adapter, clip, config, tensors)
    tuned = with_values(clip.network, merged(clip.network, factors))
    about = {name: config.get(name) for name in ("base_model_name_or_path", "r", "lora_alpha")}
    return save_delta(
        out,
        clip,
        tuned,
        configuration={"trainable": "lora", "adapter": about},
        data={},
        metrics={},
        factors=factors,
    )


def _read(adapter: Path, clip: Clip) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        config = json.loads((adapter / ADAPTER_FILE).read_text(encoding="utf-8"))
        kind = config["peft_type"]
        config |= {"r": int(config.get("r", 8)), "lora_alpha": float(config.get("lora_alpha", 8))}
        if config["r"] < 1:
            raise ValueError(f"r is {config['r']}")
        if not abs(config["lora_alpha"]) <= torch.finfo(torch.float32).max:
            raise ValueError(f"lora_alpha is {config['lora_alpha']}")
        others = [name for name in _OTHER_KINDS if config.get(name)]
        if config.get("bias", "none") != "none":
            others.append("bias")
        if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
            others.append("init_lora_weights")
        with safe_open(adapter / TENSORS_FILE, "pt") as file:
            made_over = (file.metadata() or {}).get(_BASE_VERSION, clip.version)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise CheckpointError(
            f"{adapter} cannot be read as an adapter of PEFT ({type(error).__name__}: {first_line(error)}). It needs "
            f"{ADAPTER_FILE} and {TENSORS_FILE}, as PEFT's save_pretrained writes them."
        ) from error
    if kind != "LORA" or others:
        what = f"is of the kind {kind}" if kind != "LORA" else f"has {others[0]}: {config[others[0]]!r}"
        raise CheckpointError(f"{adapter} {what}. {_PLAIN}")
    if made_over != clip.version:
        raise CheckpointError(
            f"{adapter} is an adapter for version {made_over[:12]}, but {clip.reference} is version "
            f"{clip.version[:12]}. Give the base that it was trained from."
        )
    check_finite(tensors, adapter / TENSORS_FILE)
    for name in tensors:
        halves = [f"{_layer(name)}.lora_{letter}.weight" for letter in "AB"]
        if name.removeprefix(_PREFIX) not in halves:
            raise CheckpointError(f"{adapter} has {name}, which is no factor of LoRA. {_PLAIN}")
        for half in halves:
            if _PREFIX + half not in tensors and half not in tensors:
                raise CheckpointError(
                    f"{adapter} has {name} without {half}. Its {TENSORS_FILE} may be incomplete: download it again."
                )
    return config, tensors


def _factors(
    adapter: Path, clip: Clip, config: dict[str, Any], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return an adapter's factors under our names, without those that add nothing."""
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    found = {LORA_SCALE: torch.tensor(scale)}
    names = layer_names(clip, source_of(parse(clip.reference)))
    left = {_layer(name) for name, value in tensors.items() if ".lora_A." not in name and value.any()}
    for name, layer in layers(clip.network):
        if not (used := left.intersection(names[name])):
            continue
        left -= used
        rows, width = clip.network.get_parameter(layer.weight).shape
        for letter, shape in (("A", (rank, width)), ("B", (rows // layer.parts, rank))):
            parts = [torch.zeros(shape)] * layer.parts
            for place, each in enumerate(names[name]):
                if each in used:
                    part = tensors.get(f"{_PREFIX}{each}.lora_{letter}.weight", torch.empty(0))
                    if part.shape != shape:
                        raise _misfit(adapter, clip, config, f"lora_{letter} of {each} is {list(part.shape)}")
                    parts[place] = part.float()
            found[f"{name}.lora.{letter}"] = torch.stack(parts)
    if left or len(found) == 1:
        raise _misfit(
            adapter, clip, config, f"{min(left)} is no layer of its" if left else "it adds nothing to it"
        )
    return found


def _misfit(adapter: Path, clip: Clip, config: dict[str, Any], what: str) -> CheckpointError:
    return CheckpointError(
        f"{adapter} is an adapter of rank {config['r']} for {config.get('base_model_name_or_path')}, and does not "
        f"fit {clip.reference} ({clip.architecture}): {what}. Give the base that it was trained from."
    )


def _layer(name: str) -> str:
    """Return the name of the layer that a tensor belongs to."""
    return name.removeprefix(_PREFIX).partition(".lora_")[0]

"""Resolve a reference into configuration, preprocessing, weights and tokenizer, without guessing (decision 4)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip.pretrained import download_pretrained, download_pretrained_from_hf, get_pretrained_cfg

from sds_clip.models.checkpoints.model_config import CONFIG_FILE, STATED, checked_preprocess, read_config
from sds_clip.models.checkpoints.published import (
    QUICK_GELU_SUFFIX,
    architecture_config,
    entry_of_repository,
    known_architecture,
    published_preprocess,
    stated_activation,
    unknown_tag,
)
from sds_clip.models.checkpoints.references import (
    Demo,
    Folder,
    Hub,
    Published,
    Reference,
    WeightsFile,
    demo_folder,
    expanded,
)
from sds_clip.models.errors import CheckpointError, first_line

WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
"""In open_clip's order of preference."""


@dataclass(frozen=True)
class Source:
    """All pieces of one checkpoint, found and checked against one another but not yet read."""

    architecture: str
    model_config: dict[str, Any]
    """open_clip's `model_cfg`, with `quick_gelu` set to what the weights need."""
    preprocess: dict[str, Any]
    """mean, std, interpolation, resize_mode and fill_color. The size comes from the network."""
    weights: Path
    tokenizer: Path | str | None
    """The tokenizer's folder or hub name; None for CLIP's own."""
    dimensions: tuple[int, ...] = ()
    """The lengths to which embeddings may be cut; see `sds_clip.models.checkpoints.model_config.read_config`."""


def resolve(reference: Reference) -> Source:
    """Find a checkpoint's pieces, and download published ones.

    Raises CheckpointError if one is missing or two contradict each other.
    """
    match reference:
        case Demo(name):
            folder = demo_folder(name)
            if not folder.is_dir():
                raise CheckpointError(f"The package leaves {name} out. Start from a clone of the repository.")
            return _from_folder(folder)
        case Folder(path):
            return _from_folder(expanded(path))
        case Hub(repository):
            return _from_hub(repository)
        case Published(architecture, tag):
            return _from_registry(architecture, tag)
        case WeightsFile():
            return _from_weights_file(reference)


def write_config(folder: Path, source: Source, more: Mapping[str, Any]) -> None:
    """Write what a source says of its weights, and `more`, as open_clip's configuration into a folder."""
    content = {
        "architecture": source.architecture,
        "model_cfg": source.model_config,
        "preprocess_cfg": source.preprocess,
        **more,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _from_registry(architecture: str, tag: str) -> Source:
    config = architecture_config(architecture)
    entry = get_pretrained_cfg(architecture, tag)
    if not entry:
        raise CheckpointError(unknown_tag(architecture, tag))
    config["quick_gelu"] = bool(config.get("quick_gelu") or entry.get("quick_gelu"))
    try:
        weights = download_pretrained(entry)
    except Exception as error:
        raise _unreachable(f"{architecture}/{tag}", error) from error
    if not weights.endswith(".safetensors"):
        activation = "quickgelu" if config["quick_gelu"] else "gelu"
        stated = architecture if architecture.endswith(QUICK_GELU_SUFFIX) else f"{architecture}+{activation}"
        raise CheckpointError(
            f"{architecture}/{tag} is published only as a pickle, which can run code when opened. It was "
            f"downloaded to {weights}; convert it once: "
            f"`sds-clip convert {weights} --architecture {stated} --out FOLDER`."
        )
    return Source(
        architecture=architecture.removesuffix(QUICK_GELU_SUFFIX),
        model_config=config,
        preprocess={"fill_color": 0, **{key: entry[key] for key in STATED}},
        weights=Path(weights),
        tokenizer=config["text_cfg"].get("hf_tokenizer_name"),
    )


def _unreachable(name: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{name} cannot be downloaded ({type(error).__name__}: {first_line(error)}). Connect to "
        "the network, put the files into the Hugging Face cache (see HF_HOME), or give the same "
        "model as a folder, local-dir:PATH."
    )


def _from_hub(repository: str) -> Source:
    try:
        config_file = Path(download_pretrained_from_hf(repository, filename=CONFIG_FILE))
    except Exception as error:
        raise _unreachable(f"hf-hub:{repository}", error) from error
    config, preprocess, dimensions = read_config(config_file)
    registered = entry_of_repository(repository)
    stated = bool(config.get("quick_gelu"))
    if registered and bool(registered.get("quick_gelu")) != stated:
        raise CheckpointError(
            f"hf-hub:{repository} says quick_gelu={stated}, but open_clip's registry says "
            f"{not stated} for the same weights. One of the two gives wrong scores without an error. "
            "Name the weights by architecture and tag, or put them in a folder (local-dir:) with the "
            "right quick_gelu."
        )
    if not {"interpolation", "resize_mode"} & preprocess.keys():
        # Repositories from before these two keys existed. At that time open_clip knew only these values.
        preprocess = {"interpolation": "bicubic", "resize_mode": "shortest", **preprocess}
    checked = checked_preprocess(preprocess, config, f"hf-hub:{repository}")
    weights = _hub_weights(repository)
    return Source(
        architecture=known_architecture(config) or repository,
        model_config=config,
        preprocess=checked,
        weights=weights,
        tokenizer=config["text_cfg"].get("hf_tokenizer_name"),
        dimensions=dimensions,
    )


def _hub_weights(repository: str) -> Path:
    failures: list[Exception] = []
    for name in WEIGHT_FILES:
        try:
            return Path(download_pretrained_from_hf(repository, filename=name))
        except Exception as error:
            failures.append(error)
    raise CheckpointError(
        f"None of {', '.join(WEIGHT_FILES)} can be downloaded from hf-hub:{repository} "
        f"({first_line(failures[0])}). Pickles (.bin) are not read from the hub: download the "
        "file and convert it with `sds-clip convert`. Without a network, put the files into the "
        "cache (HF_HOME) or use local-dir:PATH."
    )


def _from_folder(folder: Path) -> Source:
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}.")
    config, preprocess, dimensions = read_config(folder / CONFIG_FILE)
    _check_neighbour(folder, config)
    return Source(
        architecture=known_architecture(config) or folder.resolve().name,
        model_config=config,
        preprocess=checked_preprocess(preprocess, config, str(folder / CONFIG_FILE)),
        weights=_folder_weights(folder),
        tokenizer=folder if config["text_cfg"].get("hf_tokenizer_name") else None,
        dimensions=dimensions,
    )


def _folder_weights(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(file.name for file in others)
        raise CheckpointError(
            f"{folder} contains several files of weights ({names}); rename the one to use to "
            f"{WEIGHT_FILES[0]}."
        )
    pickles = sorted(file for ending in ("bin", "pt", "pth") for file in folder.glob(f"*.{ending}"))
    if pickles:
        raise CheckpointError(
            f"{folder} contains its weights only as a pickle ({pickles[0].name}), which can run code "
            f"when opened. Convert it once: `sds-clip convert {pickles[0]} --architecture "
            "ARCHITECTURE --out FOLDER`."
        )
    raise CheckpointError(f"{folder} contains no weights. Put {WEIGHT_FILES[0]} next to {CONFIG_FILE}.")


def _check_neighbour(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a transformers `config.json` next to open_clip's that states another activation."""
    neighbour = folder / "config.json"
    if not neighbour.is_file():
        return
    try:
        other = json.loads(neighbour.read_text(encoding="utf-8"))
        stated = {
            other[tower].get("hidden_act") for tower in ("text_config", "vision_config") if tower in other
        }
    except (ValueError, AttributeError, TypeError):
        return
    expected = "quick_gelu" if config.get("quick_gelu") else "gelu"
    contrary = "gelu" if expected == "quick_gelu" else "quick_gelu"
    if contrary in stated:
        raise CheckpointError(
            f"{folder}: config.json says hidden_act {contrary}, but {CONFIG_FILE} says {expected} "
            "(model_cfg.quick_gelu). One of the two gives wrong scores without an error; correct it."
        )


def _from_weights_file(reference: WeightsFile) -> Source:
    path = expanded(reference.path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    architecture = reference.architecture
    quick_gelu = stated_activation(architecture, reference.quick_gelu)
    plain = architecture.removesuffix(QUICK_GELU_SUFFIX)
    config = architecture_config(architecture)
    config["quick_gelu"] = quick_gelu
    return Source(
        architecture=plain,
        model_config=config,
        preprocess=published_preprocess(plain, quick_gelu),
        weights=path,
        tokenizer=config["text_cfg"].get("hf_tokenizer_name"),
    )

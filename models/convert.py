"""Convert a pickled checkpoint into a folder of safetensors. This is the only module that opens a pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import get_tokenizer
from safetensors.torch import save_file
from torch import Tensor

from models.atomic import atomic_folder
from models.checkpoints import OPENAI_ARCHIVE_KEYS, build_network, check_finite
from models.errors import first_line
from models.export import write_folder
from models.model_config import checked_preprocess
from models.published import (
    QUICK_GELU_SUFFIX,
    architecture_config,
    published_preprocess,
    stated_activation,
)
from models.references import CheckpointError, architecture_and_activation
from models.sources import WEIGHT_FILES, Source
from models.version import as_stored


def convert_pickle(
    path: Path,
    architecture: str,
    out_dir: Path,
    *,
    preprocess: dict[str, Any] | None = None,
) -> Path:
    """Write the weights of a `.pt` file into `out_dir`, and return it.

    The file is an open_clip training checkpoint ({"state_dict": {"module...."}}) or a bare state dict, and is
    read as tensors only. If open_clip's published weights for the architecture disagree, the activation must
    be stated (`ViT-B-32+gelu`, `ViT-B-32-quickgelu`) and `preprocess` given (mean, std, interpolation,
    resize_mode). The folder appears whole or not at all.

    Raises CheckpointError if the file holds no such weights, they do not fit, or `out_dir` exists.
    """
    architecture, stated_quick = architecture_and_activation(architecture)
    quick = stated_activation(architecture, stated_quick)
    plain = architecture.removesuffix(QUICK_GELU_SUFFIX)
    config = {**architecture_config(architecture), "quick_gelu": quick}
    if preprocess is None:
        stated = published_preprocess(plain, quick)
    else:
        stated = checked_preprocess(preprocess, config, "The given preprocessing")
    with atomic_folder(out_dir) as working:
        weights = read_pickle(path, plain, quick)
        check_finite(weights, path)
        file = working / WEIGHT_FILES[0]
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, file)
        # The weights are loaded into the network first: its names and shapes are kept, and a mismatch is found here.
        network = build_network(Source(plain, config, stated, file, None), weights)
        dtypes = {name: value.dtype for name, value in weights.items()}
        write_folder(working, plain, config, stated, dict(as_stored(network, dtypes)))
        _save_tokenizer(architecture, config, working)
    return out_dir


def read_pickle(path: Path, architecture: str, quick_gelu: bool) -> dict[str, Tensor]:
    """Read a checkpoint's tensors without running any code in it.

    Raises CheckpointError for an archive of code, for other objects, and for OpenAI weights as plain GELU.
    """
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which contains code, like OpenAI's original files. Use "
            f"{architecture}/openai: open_clip publishes the same weights without code."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise CheckpointError(
            f"This user has no permission to read {path}; change the file's permissions."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of tensors only: it contains other objects, which could run code, or it is "
            "incomplete, or not a checkpoint at all. Save the model's state_dict() alone, and convert that file."
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path} contains no state dict.")
    weights = {str(name).removeprefix("module."): value for name, value in weights.items()}
    original = OPENAI_ARCHIVE_KEYS & weights.keys()
    if original and not quick_gelu:
        raise CheckpointError(
            f"{path} is OpenAI's original state dict (it has {', '.join(sorted(original))}), which "
            f"was trained with QuickGELU. Convert it as {architecture}{QUICK_GELU_SUFFIX}."
        )
    weights = {name: value for name, value in weights.items() if name not in original}
    others = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path} contains no state dict: {', '.join(others[:3])} "
            f"{'is not a tensor' if len(others) == 1 else 'are not tensors'}. Convert the file that "
            "contains the weights, not the optimizer's state or a whole training state."
        )
    return weights


def _is_torchscript(path: Path) -> bool:
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") or "/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False  # torch.load reports what is wrong with it


def _save_tokenizer(architecture: str, config: dict[str, Any], folder: Path) -> None:
    if not config["text_cfg"].get("hf_tokenizer_name"):
        return
    try:
        get_tokenizer(architecture).save_pretrained(str(folder))
    except Exception as error:
        raise CheckpointError(
            f"The tokenizer of {architecture} ({config['text_cfg']['hf_tokenizer_name']}) cannot be "
            f"downloaded ({type(error).__name__}: {first_line(error)}). Connect to the network, or "
            "put its files into the Hugging Face cache (see HF_HOME)."
        ) from error

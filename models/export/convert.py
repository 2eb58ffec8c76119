"""Convert checkpoints in other layouts into open_clip's folder. This is the only module that opens a pickle."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import get_tokenizer
from safetensors.torch import save_file
from torch import Tensor

from sds_clip.models.atomic import atomic_folder
from sds_clip.models.checkpoints.load import (
    OPENAI_ARCHIVE_KEYS,
    build_network,
    check_finite,
    load_clip,
    read_weights,
    some,
    source_of,
)
from sds_clip.models.checkpoints.model_config import checked_preprocess
from sds_clip.models.checkpoints.published import (
    QUICK_GELU_SUFFIX,
    architecture_config,
    published_preprocess,
    stated_activation,
)
from sds_clip.models.checkpoints.references import ADAPTER_FILE, architecture_and_activation, parse
from sds_clip.models.checkpoints.sources import WEIGHT_FILES, Source
from sds_clip.models.checkpoints.transformers_clip import (
    Stated,
    is_transformers,
    open_clip_names,
    stated_beside,
    weights_file,
)
from sds_clip.models.clip.version import as_stored
from sds_clip.models.errors import CheckpointError, first_line
from sds_clip.models.export.write import copy_tokenizer, stored_formats, write_folder

_WRAPPERS = ("state_dict", "model")
_SCALE = "logit_scale"


def convert_checkpoint(
    path: Path,
    out_dir: Path,
    *,
    architecture: str | None = None,
    base: str | None = None,
    preprocess: dict[str, Any] | None = None,
) -> Path:
    """Write the weights of `path` into `out_dir` in open_clip's layout, and return it.

    `path` is a file of open_clip's or of transformers' names (a state dict, bare, inside of a training
    checkpoint or of the module that trained it), or a folder of transformers. Pickles are read as tensors
    only. What the weights do not say comes from open_clip's published weights of the `architecture`: where
    these disagree, the activation must be stated (`ViT-B-32+gelu`, `ViT-B-32-quickgelu`) and `preprocess` given
    (mean, std, interpolation, resize_mode). Or it comes from `base`, the reference of the model that was
    trained; to an image tower alone, the base also lends the rest of the weights. A folder of transformers may
    state activation and preprocessing itself. An adapter of PEFT becomes a delta over the `base`. `out_dir` appears
    whole or not at all.

    Raises CheckpointError if there are no such weights, they do not fit, or `out_dir` exists.
    """
    if (architecture is None) == (base is None):
        raise CheckpointError(
            "Give either --architecture, or --base with the model that the checkpoint was trained from."
        )
    if (path / ADAPTER_FILE).is_file():
        if base is None or preprocess is not None:
            raise CheckpointError(
                f"{path} is an adapter of PEFT. Give --base, and neither --architecture nor --preprocess."
            )
        from sds_clip.models.export.peft import import_peft

        return import_peft(path, out_dir, base)
    with atomic_folder(out_dir) as working:
        weights, beside = _read(path)
        source = _source(architecture, base, beside, preprocess)
        if beside:
            beside.check(source.model_config, architecture or str(base))
        original = OPENAI_ARCHIVE_KEYS & weights.keys()
        if original and not source.model_config.get("quick_gelu"):
            raise CheckpointError(
                f"{path} is OpenAI's original state dict (it has {', '.join(sorted(original))}), which was trained "
                f"with QuickGELU. Convert it as {source.architecture}{QUICK_GELU_SUFFIX}, or with a base of this kind."
            )
        weights = {name: value for name, value in weights.items() if name not in original}
        check_finite(weights, path)
        if all(name.startswith("visual.") for name in weights):
            weights = _completed(weights, path, base)
        file = working / WEIGHT_FILES[0]
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, file)
        # The weights are loaded into the network first: its names and shapes are kept, and a mismatch is found here.
        try:
            network = build_network(replace(source, weights=file), weights)
        except CheckpointError as error:
            raise CheckpointError(
                f"{str(error).replace(str(file), str(path))} Choose the architecture or the base that these weights "
                "were trained from."
            ) from error
        real = [name for name, value in network.state_dict().items() if value.is_floating_point()]
        if whole := [name for name in real if name in weights and not weights[name].is_floating_point()]:
            raise CheckpointError(
                f"{path} has whole numbers where weights must be: {some(whole)}. If it was quantised, convert the file "
                "in float32, float16 or bfloat16."
            )
        dtypes = {name: value.dtype for name, value in weights.items()}
        stored = dict(as_stored(network, dtypes))
        write_folder(working, source, stored)
        if architecture is None:
            copy_tokenizer(source, working)
        else:
            _save_tokenizer(architecture_and_activation(architecture)[0], source.model_config, working)
    return out_dir


def _source(
    architecture: str | None, base: str | None, beside: Stated | None, preprocess: dict[str, Any] | None
) -> Source:
    """Return what the weights do not say. Their place is the caller's."""
    if base is not None:
        source = source_of(parse(base))
    else:
        assert architecture is not None
        name, quick = architecture_and_activation(architecture)
        if quick is None and beside:
            quick = beside.quick_gelu
        config = {**architecture_config(name), "quick_gelu": stated_activation(name, quick)}
        source = Source(name.removesuffix(QUICK_GELU_SUFFIX), config, {}, Path(), None)
    where = "The given preprocessing"
    if preprocess is None and beside:
        preprocess, where = beside.preprocess(), str(beside.file.parent)
    if preprocess is not None:
        return replace(source, preprocess=checked_preprocess(preprocess, source.model_config, where))
    if base is None:
        quick = source.model_config["quick_gelu"]
        return replace(source, preprocess=published_preprocess(source.architecture, quick))
    return source


def _read(path: Path) -> tuple[dict[str, Tensor], Stated | None]:
    """Read a CLIP's tensors under open_clip's names, and what transformers' configuration beside them states."""
    file = weights_file(path) if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"There is no file {file}.")
    weights = read_weights(file) if file.suffix == ".safetensors" else _read_pickle(file)
    weights = _clip_in(weights, path)
    if is_transformers(weights):
        return open_clip_names(weights, path), stated_beside(file)
    if any(name.startswith(("class_embedding", "trunk.")) for name in weights):
        weights = {f"visual.{name}": value for name, value in weights.items()}
    return weights, None


def _read_pickle(path: Path) -> dict[str, Any]:
    """Read a checkpoint's state dict without running any code in it."""
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which contains code, like OpenAI's original files. open_clip publishes "
            "their weights without code: use a reference such as ViT-B-32/openai."
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
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} contains no state dict.")
    wrapped = [content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)]
    return wrapped[0] if wrapped else content


def _clip_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the state dict of the CLIP in a state dict, which may be that of a module that has a CLIP.

    Its place is where its logit scale is; what else the module has is left out.
    """
    weights = {str(name).removeprefix("module."): value for name, value in content.items()}
    places = {name.removesuffix(_SCALE) for name in weights if f".{name}".endswith(f".{_SCALE}")}
    if len(places) > 1:
        raise CheckpointError(
            f"{path} contains several CLIPs ({', '.join(sorted(places))}). Save the state_dict() of one of them alone, "
            "and convert that file."
        )
    place = places.pop() if places else ""
    weights = {name.removeprefix(place): value for name, value in weights.items() if name.startswith(place)}
    others = [
        name
        for name, value in weights.items()
        if not isinstance(value, Tensor) and name not in OPENAI_ARCHIVE_KEYS
    ]
    odd = [name for name, value in weights.items() if isinstance(value, Tensor) and not _is_plain(value)]
    if odd:
        raise CheckpointError(
            f"{path} has tensors that are not plain real numbers: {some(odd)}. Save dense tensors of real numbers."
        )
    if others or not weights:
        raise CheckpointError(
            f"{path} contains no state dict{f': {others[0]} is not a tensor' if others else ''}. Convert the file that "
            "contains the weights, not the optimizer's state or a whole training state."
        )
    return weights


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor is dense, on the CPU, and neither complex nor quantised."""
    plain = value.layout is torch.strided and value.device.type == "cpu"
    return plain and not value.is_complex() and not value.is_quantized


def _completed(tower: dict[str, Tensor], path: Path, base: str | None) -> dict[str, Tensor]:
    """Return the weights of the base with this image tower. The projection after the tower may be the base's."""
    if base is None:
        raise CheckpointError(
            f"{path} contains only an image tower. Use --base in place of --architecture, with the model that the "
            "tower was trained from: the rest comes from it."
        )
    clip = load_clip(base, device="cpu", precision="float32")
    rest = dict(as_stored(clip.network, stored_formats(clip)))
    lacks = {name for name in rest if name.startswith("visual.")} - tower.keys() - {"visual.proj"}
    for verb, names in (("lacks", lacks), ("also has", tower.keys() - rest.keys())):
        if names:
            raise CheckpointError(
                f"{path} is not an image tower of {base}: it {verb} {some(sorted(names))}. Choose the base that it was "
                "trained from."
            )
    return {**rest, **tower}


def _is_torchscript(path: Path) -> bool:
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

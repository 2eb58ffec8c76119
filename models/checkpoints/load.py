"""Load a checkpoint. Everything that changes a result comes from it (decision 4)."""

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.factory import load_checkpoint, load_state_dict
from open_clip.model import CLIP, CustomTextCLIP, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sds_clip.models.checkpoints.delta import apply_delta
from sds_clip.models.checkpoints.delta_file import DeltaError, base_of
from sds_clip.models.checkpoints.model_config import size_pair
from sds_clip.models.checkpoints.published import architecture_config
from sds_clip.models.checkpoints.references import (
    DESCRIPTION_FILE,
    BadReferenceError,
    Folder,
    Hub,
    Published,
    Reference,
    expanded,
    is_delta,
    parse,
)
from sds_clip.models.checkpoints.sources import Source, resolve
from sds_clip.models.clip.attention import attend_batch_first
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.precision import (
    apply_precision,
    choose_device,
    choose_precision,
    split_precision,
)
from sds_clip.models.clip.preprocess import Preprocess
from sds_clip.models.clip.tokenizers import load_tokenizer
from sds_clip.models.clip.version import (
    TOKENIZER_FILES,
    Identity,
    as_stored,
    effective_model_config,
    stored,
)
from sds_clip.models.errors import CheckpointError, first_line
from sds_clip.models.files import sha256_of

OPENAI_ARCHIVE_KEYS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Entries that only the state dict of an original OpenAI archive has."""


def load_clip(reference: str, *, device: str = "auto", precision: str = "auto") -> Clip:
    """Load a checkpoint, or a delta with its base, onto a device at a precision.

    Raises CheckpointError if a piece is missing, unreadable or contradicts another, and PrecisionError for an
    unknown device or precision.
    """
    parsed = parse(reference)
    chosen_device = choose_device(device)
    chosen_precision = choose_precision(precision, chosen_device)
    whole, deltas = unfold(parsed)
    try:
        clip = _load_whole(whole)
    except CheckpointError as error:
        if not deltas:
            raise
        raise DeltaError(
            f"The base of {deltas[-1]} cannot be loaded: {error} If the base is in another place, "
            f"correct base.reference in {DESCRIPTION_FILE} (its version is checked). Or run `sds-clip "
            "export` on the delta on a machine that has the base."
        ) from error
    for delta in reversed(deltas):
        clip = apply_delta(clip, Path(delta.path), 1.0 if delta.alpha is None else delta.alpha)
    network = apply_precision(clip.network.to(chosen_device), chosen_precision)
    for value in (*network.parameters(), *network.buffers()):
        if value.is_cpu and value.dtype not in (torch.bfloat16, torch.float16):
            value.data = value.data.clone()  # it may still lie in the file, which others may overwrite
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return replace(
        clip,
        reference=str(parsed),
        device=chosen_device,
        precision=chosen_precision,
        size_bytes=size_bytes,
    )


def load_served(reference: str, *, device: str = "auto", precision: str = "auto") -> Clip:
    """Load a checkpoint as `load_clip` does, to serve it: with the decoding of large JPEGs that fits the precision.

    In float32 they are decoded in full. In other precisions, whose rounding changes more, they are `scaled`. A
    precision such as `float32+scaled` or `bfloat16+full` says it itself.
    """
    number, decoding = split_precision(precision)
    clip = load_clip(reference, device=device, precision=number)
    return replace(clip, decoding=decoding or ("full" if clip.precision == "float32" else "scaled"))


def unfold(reference: Reference) -> tuple[Reference, list[Folder]]:
    """Return the whole checkpoint at the end of a reference, and the deltas on top of it, the topmost first.

    Raises CheckpointError if a delta is based on itself, or if alpha is given for something that is not a
    delta.
    """
    deltas: list[Folder] = []
    while isinstance(reference, Folder) and is_delta(expanded(reference.path)):
        folder = expanded(reference.path)
        if any(folder.samefile(delta.path) for delta in deltas):
            raise DeltaError(
                f"{reference} is a delta over itself: its base.reference names the delta. Correct it."
            )
        deltas.append(replace(reference, path=str(folder)))
        reference = base_of(folder)
    if isinstance(reference, Folder) and reference.alpha is not None:
        raise BadReferenceError(
            f"{reference} is not a delta, so alpha has nothing to blend it with. Remove alpha."
        )
    return reference, deltas


def source_of(reference: Reference) -> Source:
    """Return the configuration, preprocessing and tokenizer that a checkpoint or a delta is used with."""
    return resolve(unfold(reference)[0])


def is_local(reference: str) -> bool:
    """Return whether a checkpoint is loaded from this machine's files alone, so that nothing is ever downloaded.

    Raises CheckpointError if it is no reference, or a local file is missing.
    """
    whole = unfold(parse(reference))[0]
    if isinstance(whole, Hub | Published):
        return False
    source = resolve(whole)
    return not isinstance(source.tokenizer, str) and "hf_model_name" not in source.model_config["text_cfg"]


def _load_whole(reference: Reference) -> Clip:
    """Load a checkpoint that is not a delta, in float32 on the CPU."""
    source = resolve(reference)
    tokenizer = load_tokenizer(source.model_config["text_cfg"], source.tokenizer)
    weights = read_weights(source.weights)
    network: Any = build_network(source, weights)
    dtypes = {name: value.dtype for name, value in weights.items()}
    del weights
    # Hashed as stored in the file, so that the version does not depend on device or precision.
    identity = Identity({name: stored(value) for name, value in as_stored(network, dtypes)}, describe(source))
    size = size_pair(network.visual.image_size)
    preprocess = {**source.preprocess, "size": size, "mode": "RGB"}
    set_model_preprocess_cfg(network, preprocess)
    attend_batch_first(network.eval().requires_grad_(False))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Clip(
        reference=str(reference),
        architecture=source.architecture,
        version=identity.version,
        identity=identity,
        network=network,
        preprocess=Preprocess(image_transform_v2(PreprocessCfg(**preprocess), is_train=False)),
        tokenizer=tokenizer,
        precision="float32",
        device=torch.device("cpu"),
        logit_scale=float(network.logit_scale.detach().exp()),
        logit_bias=None if network.logit_bias is None else float(network.logit_bias.detach()),
        embed_dim=int(source.model_config["embed_dim"]),
        dimensions=source.dimensions,
        image_size=size,
        context_length=tokenizer.context_length,
        quick_gelu=bool(source.model_config.get("quick_gelu")),
        parameters=parameters,
        size_bytes=4 * parameters,
    )


def describe(source: Source) -> dict[str, Any]:
    """Return everything but the weights that changes a result; it is part of the version."""
    text = source.model_config["text_cfg"]
    files = tokenizer_files(source.tokenizer) if source.tokenizer else None
    return {
        "model": effective_model_config(source.model_config),
        "preprocess": {
            **source.preprocess,
            "mean": list(source.preprocess["mean"]),
            "std": list(source.preprocess["std"]),
        },
        "tokenizer": "clip" if files is None else {file.name: sha256_of(file) for file in files},
        "context_length": text.get("context_length", 77),
    }


def tokenizer_files(tokenizer: Path | str, *, beside: Sequence[str] = ()) -> list[Path]:
    """Return the files of a tokenizer that exist, and of those named in `beside`.

    `tokenizer` is a folder, or a name in the Hugging Face cache.
    """
    if isinstance(tokenizer, str):
        from transformers.utils.hub import cached_file

        found = cached_file(tokenizer, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
        if found is None:
            raise CheckpointError(f"The tokenizer {tokenizer} has no tokenizer_config.json.")
        folder = Path(found).parent
    else:
        folder = tokenizer
    return [folder / name for name in (*TOKENIZER_FILES, *beside) if (folder / name).is_file()]


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read tensors in the formats they are stored in.

    Raises CheckpointError for a file that is not a checkpoint, and for numbers that are not finite.
    """
    if not os.access(file, os.R_OK):  # safetensors calls such a file missing
        raise CheckpointError(f"This user has no permission to read {file}; change the file's permissions.")
    try:
        weights: dict[str, Tensor] = load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{file} cannot be read as weights ({type(error).__name__}: {first_line(error)}). It may "
            "be incomplete: download it again."
        ) from error
    check_finite(weights, file)
    return weights


def check_finite(weights: dict[str, Tensor], file: Path) -> None:
    # Of numbers one of which is NaN, the smallest and the largest are NaN. isfinite().all() takes far longer.
    broken = [
        name
        for name, value in weights.items()
        if value.is_floating_point() and value.numel() and not all(map(torch.isfinite, value.aminmax()))
    ]
    if broken:
        raise CheckpointError(
            f"{file} has numbers that are not finite, in {some(broken)}. Training diverged, or the "
            "file is damaged. Use an earlier checkpoint."
        )


def build_network(source: Source, weights: dict[str, Tensor]) -> nn.Module:
    """Build open_clip's network for a source and load its weights, in float32 on the CPU.

    The network takes over those of `weights` that fit as they are, and these may lie in the file itself.

    Raises CheckpointError if configuration and weights do not fit each other.
    """
    try:
        with _Uninitialised():
            network = _network(source.model_config)
    except Exception as error:
        raise CheckpointError(
            f"open_clip cannot build the model that {source.weights.parent} describes "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    _check_fit(source, network, weights)
    try:
        if type(network) is CLIP and _fits_as_it_is(network, weights):
            network.load_state_dict(weights, assign=True)
        else:
            load_checkpoint(network, str(source.weights), strict=True)
    except Exception as error:
        reasons = " ".join(line.strip() for line in str(error).splitlines()[1:4])[:500] or first_line(error)
        raise CheckpointError(f"{source.weights} does not fit {source.architecture}: {reasons}") from error
    return network


def network_of(reference: Reference) -> nn.Module | None:
    """Return a checkpoint's network without its numbers, or None if only a download would show it.

    Raises CheckpointError if a local piece is missing or unreadable.
    """
    match unfold(reference)[0]:
        case Hub():
            return None
        case Published(architecture):
            config = architecture_config(architecture)
        case local:
            config = resolve(local).model_config
    return network_without_numbers(config)


def network_without_numbers(model_config: Mapping[str, Any]) -> nn.Module | None:
    """Return the network of a `model_cfg` on the meta device, or None if its text tower is described elsewhere."""
    if "hf_model_name" in model_config["text_cfg"]:
        return None
    with torch.device("meta"):
        return attend_batch_first(_network(model_config).requires_grad_(False))


def _network(model_config: Mapping[str, Any]) -> nn.Module:
    config = deepcopy(dict(model_config))
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    # The towers' own pretrained weights would be downloaded only to be overwritten.
    config["text_cfg"].update({"hf_model_pretrained": False} if "hf_model_name" in config["text_cfg"] else {})
    config["vision_cfg"].update(
        {"timm_model_pretrained": False} if "timm_model_name" in config["vision_cfg"] else {}
    )
    kind = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom_text else CLIP
    network: nn.Module = kind(**config)
    return network


class _Uninitialised(TorchFunctionMode):
    """Leaves parameters as they were allocated. Every one is then read from a file, which is faster than drawing it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _fits_as_it_is(network: nn.Module, weights: dict[str, Tensor]) -> bool:
    def layout(tensors: dict[str, Tensor]) -> dict[str, Any]:
        return {name: (value.shape, value.dtype) for name, value in tensors.items()}

    return layout(network.state_dict()) == layout(weights)


def _check_fit(source: Source, network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Refuse mismatches to which open_clip would silently adapt the weights."""
    archive = OPENAI_ARCHIVE_KEYS & weights.keys()
    if archive:
        raise CheckpointError(
            f"{source.weights} has {some(sorted(archive))}, so it is an original OpenAI archive. "
            f"Such a model's activation is QuickGELU. Use {source.architecture}/openai, or convert "
            "the file with `sds-clip convert`."
        )
    expected = network.state_dict()
    for name in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding"):
        if name in weights and name in expected and weights[name].shape != expected[name].shape:
            stored, asked = list(weights[name].shape), list(expected[name].shape)
            raise CheckpointError(
                f"In {source.weights}, {name} has shape {stored}, but the configuration needs {asked}. "
                "Its image_size, patch_size or context_length does not belong to these weights."
            )
    tower: Any = network.visual
    patches: Any = getattr(getattr(tower, "trunk", None), "patch_embed", None)
    if getattr(patches, "strict_img_size", False) and patches.img_size != tower.image_size:
        reads, stated = ("x".join(map(str, size)) for size in (patches.img_size, tower.image_size))
        raise CheckpointError(
            f"The configuration of {source.weights} has image_size {stated}, but its tower from timm reads "
            f"pictures of {reads}. Set model_cfg.vision_cfg.image_size, and size in preprocess_cfg, to what it reads."
        )
    if ("logit_bias" in weights) != ("logit_bias" in expected):
        stated, other = (
            ("weights", "configuration") if "logit_bias" in weights else ("configuration", "weights")
        )
        raise CheckpointError(
            f"{source.weights}: there is a logit bias (SigLIP's sigmoid) in the {stated}, but none in "
            f"the {other}. Set model_cfg.init_logit_bias if the weights contain logit_bias, and only "
            "then."
        )


def some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Save what fine-tuning changed as a delta, and apply a delta to its base (decision 12).

WiSE-FT (arXiv 2109.01903, eq. 1) applies part of it: theta = (1 - alpha) theta_base + alpha theta_tuned.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sds_clip.models.atomic import atomic_folder
from sds_clip.models.checkpoints.delta_file import Delta, DeltaError, read_delta, write_delta
from sds_clip.models.checkpoints.references import Folder
from sds_clip.models.clip import lora
from sds_clip.models.clip.golden import TOLERANCE, Golden
from sds_clip.models.clip.mixed import Member, with_values
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.sharing import share
from sds_clip.models.clip.version import LORA_SCALE


def save_delta(
    folder: Path,
    base: Clip,
    tuned: nn.Module,
    *,
    configuration: dict[str, Any],
    data: dict[str, Any],
    metrics: dict[str, Any],
    factors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the difference between a float32 base and its tuned network, and return the folder.

    The tuned network may share its frozen tensors with the base. `factors` are all that was trained, if it was LoRA
    (`sds_clip.models.clip.lora`). The folder appears whole or not at all, and
    only after it was read back onto the base with embeddings equal to the tuned network's.

    Raises DeltaError if the two do not fit each other or a tuned number is not finite, and CheckpointError if
    the folder exists or cannot be written.
    """
    changed = changed_tensors(base, tuned) if factors is None else factors
    version = base.identity.replacing(changed).version
    golden = Golden.of(clip_with(base, share(tuned).eval()))
    history = {"configuration": configuration, "data": data, "metrics": metrics}
    with atomic_folder(folder) as working:
        write_delta(working, base, version, changed, golden, history)
        apply_delta(base, working)
    return folder


def changed_tensors(base: Clip, tuned: nn.Module) -> dict[str, Tensor]:
    """Return the tuned tensors that are not equal to the base's, on the CPU.

    Raises DeltaError if the networks have different tensors, or a changed one is not finite float32.
    """
    if base.precision != "float32" or tuned is base.network:
        raise DeltaError(
            f"A delta needs {base.reference} as it was before training, in float32. Load it again "
            "with precision float32."
        )
    before, after = base.network.state_dict(), tuned.state_dict()
    if {name: value.shape for name, value in before.items()} != {
        name: value.shape for name, value in after.items()
    }:
        raise DeltaError(
            f"The tuned network and {base.reference} do not have the same tensors, so the network was "
            "tuned from another base. Give that base."
        )
    changed: dict[str, Tensor] = {}
    for name, value in after.items():
        if value.dtype == before[name].dtype and torch.equal(value.detach().to(base.device), before[name]):
            continue
        if value.dtype is not torch.float32 or not value.isfinite().all():
            raise DeltaError(
                f"After training, {name} is {value.dtype} or has numbers that are not finite, but a delta "
                "needs finite float32 numbers. Use an earlier checkpoint or a lower learning rate, or "
                "keep the trained weights in float32."
            )
        changed[name] = value.detach().cpu()
    return changed


def apply_delta(base: Clip, folder: Path, alpha: float = 1.0) -> Clip:
    """Apply a delta to its loaded base. The new Clip shares every unchanged tensor with the base.

    Raises DeltaError if this is not the delta's base, if a tensor does not fit, or, at alpha 1, if the
    version or the embeddings are not those that were saved.
    """
    if not 0 <= alpha <= 1:
        raise DeltaError(f"alpha must be a number from 0 (the base) to 1 (the delta), not {alpha}.")
    delta = read_delta(folder)
    clip = lay_over(base, delta, alpha)
    if alpha == 1:
        _check_embeddings(delta, clip)
    return clip


def lay_over(base: Clip, delta: Delta, alpha: float = 1.0) -> Clip:
    """Apply a delta that has been read, without a forward pass; the caller checks the embeddings.

    Raises DeltaError if this is not the delta's base, if a tensor does not fit, or, at alpha 1, if the
    version is not the one that was saved.
    """
    _check_base(delta, base)
    tensors = _blended(delta, base, alpha)
    network = _laid_over(base.network, tensors)
    identity = base.identity.replacing(tensors)
    if alpha == 1 and identity.version != delta.about.version:
        raise DeltaError(
            f"{delta.folder} was saved as version {delta.about.version[:12]} but now gives version "
            f"{identity.version[:12]}, so its files were changed. Copy the folder again."
        )
    reference = str(Folder(str(delta.folder), None if alpha == 1 else alpha))
    return replace(clip_with(base, network), reference=reference, identity=identity, version=identity.version)


def _check_base(delta: Delta, base: Clip) -> None:
    if base.version != delta.about.base_version:
        raise DeltaError(
            f"{delta.folder} is a delta of version {delta.about.base_version[:12]} "
            f"({delta.about.base}), but {base.reference} is version {base.version[:12]}. With another "
            "base it would give other scores. Use the base that it was trained from."
        )
    network = base.network.family.base if isinstance(base.network, Member) else base.network
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    shapes |= lora.shapes(network, delta.tensors)
    for name, value in delta.tensors.items():
        if shapes.get(name) != value.shape:
            has = f"it has shape {list(shapes[name])}" if name in shapes else "it does not exist"
            raise DeltaError(
                f"In {delta.folder}, {name} has shape {list(value.shape)}, but in the base {has}. Use the "
                "base that the delta was trained from."
            )


def _blended(delta: Delta, base: Clip, alpha: float) -> Mapping[str, Tensor]:
    """Return (1 - alpha) theta_base + alpha theta_tuned. Factors stay, and their scale is multiplied by alpha.

    It is computed on the CPU, so that every device gets the same bits.
    """
    if alpha == 0:
        return {}
    if alpha == 1:
        return delta.tensors
    network = base.network.alone({}) if isinstance(base.network, Member) else base.network
    state = network.state_dict()
    factors = {name: value for name, value in delta.tensors.items() if lora.is_factor(name)}
    if factors:
        factors[LORA_SCALE] = alpha * factors[LORA_SCALE]
    values = {name: value for name, value in delta.tensors.items() if name not in factors}
    rounded = [name for name in values if state[name].dtype is not torch.float32]
    if rounded:
        raise DeltaError(
            f"{rounded[0]} of {base.reference} was rounded to {base.precision}, so it cannot be "
            f"blended. Load the delta as {Folder(str(delta.folder), alpha)}, or load the base in "
            "float32."
        )
    return factors | {
        name: (1 - alpha) * state[name].detach().cpu() + alpha * value for name, value in values.items()
    }


def _check_embeddings(delta: Delta, clip: Clip) -> None:
    angle, allowed = delta.golden.angle(clip), TOLERANCE[clip.precision]
    if not angle <= allowed:
        raise DeltaError(
            f"The embeddings of the golden inputs of {delta.folder} are {angle:.2g} radians away from "
            f"those that were saved with it; at most {allowed:g} are allowed in {clip.precision}. "
            "This program does not compute the same function as the one that saved the delta."
        )


def clip_with(base: Clip, network: nn.Module) -> Clip:
    """Return the CLIP with another network of its kind."""
    loaded: Any = network
    scale, bias = loaded.logit_scale.detach(), loaded.logit_bias
    return replace(
        base,
        network=network,
        device=scale.device,
        logit_scale=float(scale.exp()),
        logit_bias=None if bias is None else float(bias.detach()),
        alone=None,
    )


def _laid_over(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a network with other values for some tensors, as a member of the network's family if it can be one."""
    if isinstance(network, Member):
        return network.with_tensors(tensors) or network.alone(tensors)
    return with_values(network, lora.merged(network, tensors))

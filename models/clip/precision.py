"""Devices and number formats. Parameters of normalisation layers stay float32 in every format (decision 5).

The small LayerNorm changes that fine-tuning makes would be rounded away: near 1, bfloat16 has a spacing of
0.0078.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sds_clip.models.choices import DECODINGS
from sds_clip.models.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PRECISIONS = ("auto", *DTYPES, *ALIASES)
_NAMED = f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"

# Names are matched too, for norms that do not derive from torch's, such as T5LayerNorm.
_LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)
_LAYER_NORM_NAMES = re.compile(r"(layer|rms)_?norm", re.IGNORECASE)
_OTHER_NORMS = (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_OTHER_NORM_NAMES = re.compile(r"(batch|group)_?norm", re.IGNORECASE)
_FLOAT32_PARAMETERS = ("logit_scale", "logit_bias")


class PrecisionError(ModelError):
    """The device or the precision is unknown, or not available here."""

    code: ClassVar[str] = "bad_precision"


class DeviceError(PrecisionError):
    """The device is not available on this machine."""

    code: ClassVar[str] = "bad_device"


@cache
def native_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16, AMX, Arm BF16).

    Elsewhere torch emulates it, slower than float32.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None


def gpu_native_bf16(device: torch.device) -> bool:
    """Return whether a GPU multiplies bfloat16 in hardware: NVIDIA from Ampere (8.0) on, AMD with ROCm.

    torch.cuda.is_bf16_supported() also counts emulation.
    """
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def choose_device(device: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device. `auto` is the first GPU if there is one.

    Raises DeviceError for a device that is not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
        if chosen.type == "meta" or (chosen.type == "cpu" and chosen.index):
            raise RuntimeError("It computes nothing, or is none of its own.")
    except (RuntimeError, AssertionError) as error:
        usable = "auto, cpu, cuda or cuda:N" if torch.cuda.is_available() else "auto or cpu"
        raise DeviceError(f"The device {device!r} is not available on this machine. Use {usable}.") from error
    return chosen


def limit_memory(device: str, share: float) -> None:
    """Limit this process to a share of a GPU's memory. On another device this does nothing.

    Raises PrecisionError for a device that is not available.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, chosen.index)


def use_threads(count: int) -> None:
    """Let torch compute with so many threads, or with all that OpenMP may start if these are fewer."""
    torch.set_num_threads(min(count, _most_threads()))


def _most_threads() -> int:
    limit = os.environ.get("OMP_THREAD_LIMIT", "").strip()
    return int(limit) if limit.isdecimal() and int(limit) else sys.maxsize


def _check_threads() -> None:
    """oneDNN divides a product among torch's threads. The part of a thread that is never started stays unwritten."""
    if os.environ.get("OMP_DYNAMIC", "").strip().lower() == "true":
        what = "OMP_DYNAMIC is true. Unset it"
    elif torch.get_num_threads() > _most_threads():
        what = f"OMP_THREAD_LIMIT is {_most_threads()}. Unset it, or set OMP_NUM_THREADS to as few"
    else:
        return
    raise PrecisionError(
        f"OpenMP may start fewer threads than torch's {torch.get_num_threads()}, and torch would then compute "
        f"wrong numbers: {what}."
    )


def split_precision(precision: str) -> tuple[str, str]:
    """Split a precision such as `bfloat16+full` into the number format and the decoding, which is empty if not given.

    Raises PrecisionError for another decoding, or for another name beside one.
    """
    number, plus, decoding = precision.partition("+")
    if plus and (decoding not in DECODINGS or number not in PRECISIONS):
        raise PrecisionError(
            f"The precision cannot be {precision!r}. Write {_NAMED}, and after the + {' or '.join(DECODINGS)}."
        )
    return number, decoding


def choose_precision(precision: str, device: torch.device) -> str:
    """Turn `auto` or a short name into float32, bfloat16 or float16.

    `auto` is bfloat16 if the hardware computes in it, else float32. Raises PrecisionError for another name,
    for float16 on a CPU, and on a CPU if OpenMP's threads may be fewer than torch's.
    """
    if device.type == "cpu":
        _check_threads()
    if precision == "auto":
        native = gpu_native_bf16(device) if device.type == "cuda" else native_bf16()
        return "bfloat16" if native else "float32"
    chosen = ALIASES.get(precision, precision)
    if chosen not in DTYPES:
        raise PrecisionError(f"The precision cannot be {precision!r}. Use {_NAMED}.")
    if chosen == "float16" and device.type == "cpu":
        raise PrecisionError("float16 is for GPUs; use bfloat16 or float32 on a CPU.")
    return chosen


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation layer.

    It is one of torch's, or one of another library, which is recognised by the name of its class.
    """
    other = isinstance(module, _OTHER_NORMS) or _OTHER_NORM_NAMES.search(type(module).__name__) is not None
    return other or is_layer_norm(module)


def is_layer_norm(module: nn.Module) -> bool:
    """Return whether a module is a LayerNorm or RMSNorm: one of torch's, or one named so, such as T5LayerNorm."""
    return isinstance(module, _LAYER_NORMS) or _LAYER_NORM_NAMES.search(type(module).__name__) is not None


def apply_precision(network: nn.Module, precision: str) -> nn.Module:
    """Cast a float32 network in place, except its normalisation layers and its logit scale and bias.

    The network must already be on its device. Parameters keep their identity and names, so a state dict fits
    before and after.
    """
    dtype = DTYPES[precision]
    if dtype is torch.float32:
        return network
    for module in network.modules():
        if is_norm(module):
            _let_norm_take(dtype, module)
            continue
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if value.is_floating_point() and not (module is network and name in _FLOAT32_PARAMETERS):
                value.data = value.data.to(dtype)
    return network


def _let_norm_take(dtype: torch.dtype, norm: nn.Module) -> None:
    """Make a float32 normalisation layer accept and return the lower precision around it."""
    weight = next(norm.parameters(), None)
    on_cpu = weight is not None and weight.device.type == "cpu"
    if on_cpu and dtype is torch.bfloat16 and isinstance(norm, nn.LayerNorm):
        return  # torch's CPU kernel takes bfloat16 with float32 weights and reduces in float32
    if not isinstance(norm, _Float32Norm):
        # Swap the class in place: the layer stays the same object for deepcopy, hooks and state dicts.
        kind: Any = type(norm)
        norm.__class__ = _float32_class(kind)


class _Float32Norm(nn.Module):
    """Compute in float32 and return the input's format."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = super().forward(x.float(), *args, **kwargs)
        return output.to(x.dtype)


def as_written(norm: nn.Module) -> tuple[type[nn.Module], bool]:
    """Return a normalisation layer's class before `apply_precision`, and whether the layer now computes in float32."""
    kind = type(norm)
    return (kind.__bases__[1], True) if issubclass(kind, _Float32Norm) else (kind, False)


@cache
def _float32_class(norm: Any) -> Any:
    return type(norm.__name__, (_Float32Norm, norm), {})

"""A GPU that is none, for machines without one: its tensors say `cuda:0`, and refuse to meet those of the CPU.

They compute on the CPU, so their numbers are right. Whatever it refuses, a real GPU refuses too. What only a real one
shows, such as its kernels, autocast and memory, is not tested with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

_GPU = torch.device("cuda:0")
_BY_INDEX = ("aten.index.", "aten.index_put", "aten._index_put", "aten._unsafe_index")
"""A GPU's tensors take indices from the CPU."""


class OnGpu(Tensor):
    """Holds a tensor of the CPU. Its device is overridden in Python, since torch would ask a driver for it."""

    device = property(lambda self: _GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type[OnGpu], held: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype
        )
        return made

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("A tensor of the GPU is no array. Use Tensor.cpu() first.")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func)
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        of_cpu = [each for each in tensors if not isinstance(each, OnGpu) and each.dim()]
        copying = name.startswith("aten.copy_")
        if of_cpu and not copying and not (name.startswith(_BY_INDEX) and isinstance(args[0], OnGpu)):
            raise RuntimeError(f"{name}: tensors of cuda:0 and of the CPU meet")
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"{name}: cuda:0 is given a generator of the CPU")
        # A view is an inference tensor only if what it looks at is one.
        plain_view = torch.is_inference_mode_enabled() and func.is_view and not args[0].is_inference()
        with torch.inference_mode(False) if plain_view else nullcontext():
            found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
            if copying and not isinstance(args[0], OnGpu):
                return args[0]
            # What an operation in place returns is what it was given.
            given = {id(_held(each)): each for each in tensors}
            return tree_map(
                lambda each: given.get(id(each), OnGpu(each)) if isinstance(each, Tensor) else each, found
            )


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, to_gpu: bool) -> Tensor:
        return OnGpu(value.detach().clone()) if to_gpu else _held(value).clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        return _held(gradient) if isinstance(gradient, OnGpu) else OnGpu(gradient), None


class _Calls(TorchFunctionMode):
    """Answers calls that name a device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in (Tensor.to, Tensor.cpu):
            return _moved(func, first, args[1:], kwargs)
        if (
            func is F.scaled_dot_product_attention
        ):  # its mask would be added by a kernel that knows no wrappers
            return _attention(*args, **kwargs)
        if isinstance(first, OnGpu):
            if func in (Tensor.tolist, Tensor.untyped_storage, Tensor.data_ptr):
                return func(first.held)
            if func is torch.unravel_index:
                return tuple(OnGpu(each) for each in func(first.held, *args[1:], **kwargs))
            if getattr(func, "__name__", "") == "__set__" and isinstance(args[1], OnGpu):  # of `data`
                first.held = args[1].held
        elif _is_gpu(kwargs.get("device")):
            requires_grad = kwargs.pop("requires_grad", False)
            return OnGpu(func(*args, **kwargs | {"device": "cpu"})).requires_grad_(requires_grad)
        return func(*args, **kwargs | ({"device": "cpu"} if _is_gpu(kwargs.get("device")) else {}))


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block, the device `cuda` is there. Nothing else of torch.cuda is."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    # A parameter that comes to the GPU is of another class, and so becomes another one.
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with _Calls():
        yield


def _moved(func: Callable[..., Any], value: Any, options: Any, named: dict[str, Any]) -> Any:
    if func is Tensor.cpu:
        options = ("cpu",)
    if options and isinstance(options[0], Tensor):
        options = (options[0].device, options[0].dtype)
    places = [each for each in (*options, named.pop("device", None)) if isinstance(each, str | torch.device)]
    rest = [each for each in options if isinstance(each, torch.dtype)]
    named.pop("non_blocking", None)
    if places and torch.device(places[0]).type == "meta":
        return Tensor.to(_held(value), "meta", *rest, **named)
    value = Tensor.to(value, *rest, **named) if rest or named else value
    if places and _is_gpu(places[0]) != isinstance(value, OnGpu):
        value = _Move.apply(value, _is_gpu(places[0]))
    return value


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    logits = query @ key.transpose(-1, -2) * (options.get("scale") or query.shape[-1] ** -0.5)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -1e9) if attn_mask.dtype is torch.bool else logits + attn_mask
    return logits.softmax(dim=-1) @ value


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _is_gpu(device: object) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"

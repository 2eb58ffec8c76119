"""Versions of one base in one batch: each row takes the LayerNorms, and the factors of LoRA, of its own version.

Fine-tuning here changes LayerNorms, and sometimes the text projection and the logit scale, or it puts factors beside
weights. Everything else is the base's, so rows of different versions share every large matrix product. PetS (USENIX ATC
2022) did the same for BERT's bias deltas, and Punica (arXiv 2310.18547) for LoRA.

A base becomes a `Family`: a copy of its network that shares every tensor, and whose LayerNorms and linear layers find
what is a version's own by row. A version is a `Member` of it, which holds its own numbers alone and stands in the place
of a network.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import chain, groupby
from typing import Any

import open_clip.transformer
import timm.layers
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sds_clip.models.clip import lora
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.precision import DTYPES, as_written
from sds_clip.models.clip.sharing import share
from sds_clip.models.clip.short_texts import encode_text, without_padding
from sds_clip.models.clip.version import LORA_SCALE
from sds_clip.models.errors import first_line

logger = logging.getLogger(__name__)

# These compute what torch's own computes. Another subclass may not.
_LAYER_NORMS = (
    nn.LayerNorm,
    open_clip.transformer.LayerNorm,
    open_clip.transformer.LayerNormFp32,
    timm.layers.LayerNorm,
)
_SCALES = ("logit_scale", "logit_bias")
_TRIAL_ROWS = 3

Factors = tuple[Tensor, Tensor]
Group = tuple["Member", int]
"""A version, and how many rows of the batch are its own. They lie side by side."""


class Unmixable(Exception):
    """A network does not compute rows of several versions at once. The message says what in it is written otherwise."""


def as_member(clip: Clip) -> Clip:
    """Return the same version as the first member of a family, or as it is, `alone`, if its network allows none."""
    if isinstance(clip.network, Member):
        return clip
    try:
        family = Family(clip.network)
        family.try_out(clip.image_size, clip.context_length, DTYPES[clip.precision])
    except Unmixable as error:
        return set_apart(clip, str(error))
    return replace(clip, network=family.first)


def set_apart(clip: Clip, reason: str) -> Clip:
    """Return the same version, marked as one that shares no batches with others, and warn of it."""
    logger.warning(
        "The version %s (%s) shares no batches with other versions, so that it is slower than they are when many are "
        "asked for: %s",
        clip.version[:12],
        clip.reference,
        reason,
    )
    return replace(clip, alone=reason)


def family_of(clip: Clip) -> "Family | nn.Module":
    """Return what the clips that may share a batch have in common."""
    return clip.network.family if isinstance(clip.network, Member) else clip.network


@torch.inference_mode()
def encode_images(clips: Sequence[Clip], pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Encode each image with its own clip. All are of one family. The float32 features are not normalised."""
    return _encode(clips, pixels, "encode_image")


@torch.inference_mode()
def encode_texts(clips: Sequence[Clip], tokens: Int[Tensor, "n context"]) -> Float[Tensor, "n d"]:
    """Encode each text with its own clip. All are of one family. The float32 features are not normalised."""
    return _encode(clips, without_padding(clips[0].network, tokens), "encode_text")


def _encode(clips: Sequence[Clip], inputs: Tensor, method: str) -> Tensor:
    first = clips[0]
    if all(clip.network is first.network for clip in clips):
        alone: Tensor = getattr(first, method)(inputs, normalize=False)
        return alone
    places = {clip: place for place, clip in enumerate(dict.fromkeys(clips))}
    order = sorted(range(len(clips)), key=lambda row: places[clips[row]])
    groups = [(clip.network, len(list(rows))) for clip, rows in groupby(clips[row] for row in order)]
    inputs = inputs[order].to(first.device)
    if inputs.is_floating_point():
        inputs = inputs.to(DTYPES[first.precision])
    features = getattr(first.network.family, method)(groups, inputs).float()
    return torch.empty_like(features).index_copy_(0, torch.tensor(order, device=features.device), features)


class Member(nn.Module):
    """One version of a family, in the place of its network."""

    def __init__(
        self,
        family: "Family",
        norms: Float[Tensor, " n"],
        others: Mapping[str, Tensor],
        factors: Mapping[str, Factors],
    ) -> None:
        super().__init__()
        self.family = family
        self.norms = norms
        """Gain and bias of every LayerNorm of the family, one after the other, in float32."""
        self.others = dict(others)
        """The text projection and the scales, by the names of the network's parameters."""
        self.factors = factors
        """A and s B by the names of their layers, in the format of the layer's weight."""

    @property
    def shared(self) -> tuple[nn.Module]:
        """The base's network, with which all members of the family compute (`sds_clip.models.clip.sharing`)."""
        return (self.family.base,)

    @property
    def computing(self) -> nn.Module:
        """The network that computes for all members."""
        network: nn.Module = self.family.network
        return network

    @property
    def visual(self) -> Any:
        """The image tower. It computes only as a part of `encode_image`."""
        return self.family.network.visual

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        return self.others["logit_scale"]

    @property
    def logit_bias(self) -> Float[Tensor, ""] | None:
        return self.others.get("logit_bias")

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The tensors that need not be the base's."""
        yield from (self.norms, *self.others.values(), *chain.from_iterable(self.factors.values()))

    def encode_image(self, pixels: Float[Tensor, "b 3 h w"], normalize: bool = False) -> Float[Tensor, "b d"]:
        features = self.family.encode_image([(self, len(pixels))], pixels)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Int[Tensor, "n context"], normalize: bool = False) -> Float[Tensor, "n d"]:
        features = self.family.encode_text([(self, len(tokens))], tokens)
        return F.normalize(features, dim=-1) if normalize else features

    def shared_by_all(self, names: Iterable[str]) -> list[str]:
        """Return those of the tensors that are the same for every row of a batch."""
        own = self.family.places.keys() | self.others.keys() | lora.factor_names(self.family.weights)
        return [name for name in names if name not in own]

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Member | None":
        """Return a member with other values for some tensors, or None if not all of them can differ by row.

        The names and shapes are those of the network's parameters.
        """
        if self.shared_by_all(tensors):
            return None
        places, norms = self.family.places, self.norms
        if norms_of_it := tensors.keys() & places.keys():
            norms = norms.clone()
            for name in norms_of_it:
                norms[places[name]].copy_(tensors[name])
        # Copies, because a tensor that was read from a file keeps all of the file in memory.
        changed = {
            name: tensors[name].to(value, copy=True) for name, value in self.others.items() if name in tensors
        }
        return Member(self.family, norms, self.others | changed, self._factors_with(tensors))

    def alone(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Return a network of this version, with other values for some tensors, that shares the rest with the base."""
        base = self.family.base
        norms = {name: self.norms[place] for name, place in self.family.places.items()}
        own = {} if self is self.family.first else self.others | norms
        factors = {LORA_SCALE: torch.ones(())}
        for name, (a, b) in self._factors_with(tensors).items():
            factors |= {f"{name}.lora.A": a, f"{name}.lora.B": b}
        return with_values(base, lora.merged(base, own | dict(tensors) | factors))

    def _factors_with(self, tensors: Mapping[str, Tensor]) -> dict[str, Factors]:
        """Return this version's factors with those among the tensors put beside them."""
        factors = dict(self.factors)
        for name, weight in self.family.weights.items():
            if f"{name}.lora.A" in tensors:
                a, b = tensors[f"{name}.lora.A"], tensors[LORA_SCALE] * tensors[f"{name}.lora.B"]
                a, b = (value.to(weight.device, weight.dtype, copy=True) for value in (a, b))
                if name in factors:
                    a, b = torch.cat([factors[name][0], a], dim=1), torch.cat([factors[name][1], b], dim=2)
                factors[name] = a, b
        return factors


class Family:
    """A base network, and a copy of it that shares its tensors and computes rows of several versions at once.

    One thread at a time encodes.
    """

    def __init__(self, base: nn.Module) -> None:
        self.base = base
        try:
            self.network: Any = share(base)
        except TypeError as error:  # of a lock, for instance
            raise Unmixable(f"Its network cannot be copied: {first_line(error)}") from error
        self.places: dict[str, slice] = {}
        """The LayerNorms' parameters by name, and where a member has them."""
        self._rows = _Rows()
        self._projection = _take_projection(self.network)
        norms = self._replace_norms()
        self.weights: dict[str, Tensor] = {}
        """The weights beside which a member may have factors, by the names of their layers."""
        for name, layer in list(lora.layers(self.network)):
            self.weights[name] = self.network.get_parameter(layer.weight)
            module: Any = self.network.get_submodule(name)
            module.lora = _RowLora(name, layer.parts, self._rows)
            kind: Any = type(module)
            module.__class__ = lora.adapted(kind, _RowLinear)
        parameters = dict(base.named_parameters()) | dict(base.named_buffers())
        others = {
            name: parameters[name].detach() for name in (*self._projection, *_SCALES) if name in parameters
        }
        self.first = Member(self, norms, others, {})
        """The base itself."""
        self._computing = threading.Lock()

    def try_out(self, image_size: tuple[int, int], context_length: int, dtype: torch.dtype) -> None:
        """Raise Unmixable unless the first dimension of every LayerNorm's input is the batch. No number is computed."""
        if not self.places:
            raise Unmixable("Its network has no LayerNorm whose parameters can differ by row.")
        tensors = [
            *self.network.parameters(),
            *self.network.buffers(),
            self.first.norms,
            *self.first.others.values(),
        ]
        memo: dict[int, Any] = {id(value): value.to("meta") for value in tensors}
        memo[id(self.base)], memo[id(self._computing)] = None, threading.Lock()
        trial = deepcopy(self, memo)
        groups = [(trial.first, 1), (trial.first, _TRIAL_ROWS - 1)]
        pixels = torch.zeros(_TRIAL_ROWS, 3, *image_size, dtype=dtype, device="meta")
        tokens = torch.zeros(_TRIAL_ROWS, context_length, dtype=torch.long, device="meta")
        try:
            with torch.inference_mode():
                trial.encode_image(groups, pixels)
                trial.encode_text(groups, tokens)
        except RuntimeError as error:  # a shape that does not fit, or an operation that cannot be tried out
            raise Unmixable(
                f"Its network failed in a trial with several versions: {first_line(error)}"
            ) from error

    def encode_image(self, groups: Sequence[Group], pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        with self._computing, self._rows.of(groups):
            features: Tensor = self.network.encode_image(pixels, normalize=False)
        return features

    def encode_text(self, groups: Sequence[Group], tokens: Int[Tensor, "n context"]) -> Float[Tensor, "n d"]:
        with self._computing, self._rows.of(groups):
            features = encode_text(self.network, tokens)
        if not self._projection:
            return features
        if len({id(member.others[self._projection[0]]) for member, _ in groups}) == 1:
            return self._project(features, groups[0][0])
        parts = torch.split(features, [rows for _, rows in groups])
        projected = [self._project(part, member) for part, (member, _) in zip(parts, groups, strict=True)]
        return torch.cat(projected)

    def _project(self, features: Float[Tensor, "n w"], member: Member) -> Float[Tensor, "n d"]:
        matrix, *biases = (member.others[name] for name in self._projection)
        if self._projection[0].endswith(".weight"):
            return F.linear(features, matrix, *biases)
        return features @ matrix

    def _replace_norms(self) -> Float[Tensor, " n"]:
        """Replace the LayerNorms of the copy, and return their numbers."""
        named = self.network.named_modules(remove_duplicate=False)
        norms = {name: module for name, module in named if _is_replaceable(module)}
        if len(set(norms.values())) < len(norms):
            raise Unmixable("One LayerNorm has two places in its network.")
        values: list[Tensor] = []
        start = 0
        for name, norm in norms.items():
            size = norm.weight.numel()
            for parameter in ("weight", "bias"):
                self.places[f"{name}.{parameter}"] = slice(start, start + size)
                values.append(getattr(norm, parameter).detach().float())
                start += size
            self.network.set_submodule(name, _RowNorm(norm, start - 2 * size, self._rows))
        return torch.cat(values) if values else torch.empty(0)


def with_values(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network with other values for some tensors, and share the rest. The copy keeps its formats and device."""
    copy = share(network, tensors.keys())
    state = copy.state_dict()
    for name, value in tensors.items():
        state[name].copy_(value)
    return copy


class _Rows:
    """Whose rows are computed now."""

    def __init__(self) -> None:
        self.table = torch.empty(0)
        """Gains and biases [g, n] of the groups, or [b, n] of the rows where a kernel takes them by row."""
        self.counts: list[int] = []
        self.factors: list[Mapping[str, Factors]] = []
        """Those of each group; empty if no group has any."""
        self.groups = torch.empty(0)
        """The group of each row, if there are several groups with factors."""

    @contextmanager
    def of(self, groups: Sequence[Group]) -> Iterator[None]:
        self.counts = [rows for _, rows in groups]
        norms = [member.norms for member, _ in groups]
        self.table = torch.stack(norms) if len(norms) > 1 else norms[0][None]
        if self.table.is_cuda and len(norms) > 1:
            counts = torch.tensor(self.counts, device=self.table.device)
            self.table = self.table.repeat_interleave(counts, dim=0, output_size=sum(self.counts))
        if any(member.factors for member, _ in groups):
            self.factors = [member.factors for member, _ in groups]
            counts = torch.tensor(self.counts, device=norms[0].device)
            self.groups = torch.arange(len(groups), device=counts.device).repeat_interleave(
                counts, output_size=sum(self.counts)
            )
        try:
            yield
        finally:
            self.table, self.counts, self.factors = torch.empty(0), [], []


class _RowNorm(nn.Module):
    """A LayerNorm whose gain and bias [d] differ by row. The first dimension of its input is the batch."""

    def __init__(self, norm: nn.LayerNorm, start: int, rows: _Rows) -> None:
        super().__init__()
        kind, in_float32 = as_written(norm)
        self.in_float32 = in_float32 or kind is open_clip.transformer.LayerNormFp32
        self.shape, self.eps = norm.normalized_shape, norm.eps
        self.gains = slice(start, start + self.shape[0])
        self.biases = slice(self.gains.stop, self.gains.stop + self.shape[0])
        self.rows = rows

    def forward(self, x: Float[Tensor, "b *n d"]) -> Float[Tensor, "b *n d"]:
        given, counts = x.dtype, self.rows.counts
        gains, biases = self.rows.table[:, self.gains], self.rows.table[:, self.biases]
        if self.in_float32:
            x = x.float()
        if len(counts) == 1:
            return F.layer_norm(x, self.shape, gains[0], biases[0], self.eps).to(given)
        if x.is_cuda:
            by_row = (len(x), *[1] * (x.dim() - 2), *self.shape)
            normal = F.layer_norm(x.float(), self.shape, eps=self.eps)
            return torch.addcmul(biases.view(by_row), normal, gains.view(by_row)).to(given)
        # Each version is computed as it is alone, so that its bits are the same.
        parts = zip(torch.split(x, counts), gains.unbind(), biases.unbind(), strict=True)
        return torch.cat(
            [F.layer_norm(part, self.shape, gain, bias, self.eps) for part, gain, bias in parts]
        ).to(given)


class _RowLora(nn.Module):
    """What the factors of each row's version add to a layer's output. The first dimension of its input is the batch."""

    def __init__(self, name: str, parts: int, rows: _Rows) -> None:
        super().__init__()
        self.name, self.parts, self.rows = name, parts, rows

    @property
    def is_idle(self) -> bool:
        return not any(self.name in factors for factors in self.rows.factors)

    def forward(self, y: Float[Tensor, "b *n po"], x: Float[Tensor, "b *n i"]) -> Float[Tensor, "b *n po"]:
        if self.is_idle:
            return y
        found = [factors.get(self.name) for factors in self.rows.factors]
        if len(found) == 1 and found[0] is not None:
            return y + lora.added(x, *found[0])
        rank = max(each[0].shape[1] for each in found if each is not None)
        none = (
            y.new_zeros(self.parts, rank, x.shape[-1]),
            y.new_zeros(self.parts, y.shape[-1] // self.parts, rank),
        )
        pairs = [none if each is None else _padded(*each, rank) for each in found]
        a, b = (torch.stack(values)[self.rows.groups] for values in zip(*pairs, strict=True))
        narrow = x.reshape(len(x), -1, x.shape[-1]) @ a.flatten(1, 2).transpose(1, 2)
        by_part = narrow.view(*narrow.shape[:2], self.parts, rank).transpose(1, 2)
        added = by_part @ b.transpose(2, 3)  # [b, p, n, o]
        output: Tensor = y + added.transpose(1, 2).reshape(y.shape)
        return output


def _padded(a: Float[Tensor, "p r i"], b: Float[Tensor, "p o r"], rank: int) -> Factors:
    more = rank - a.shape[1]
    return (F.pad(a, (0, 0, 0, more)), F.pad(b, (0, more))) if more else (a, b)


class _RowLinear(nn.Module):
    """A linear layer of a family. Where its product was fused with the GELU that follows, the factors come between."""

    lora: _RowLora

    def forward(self, x: Tensor) -> Tensor:
        product: Any = getattr(super(), "before_gelu", None)
        if self.lora.is_idle or product is None:
            output: Tensor = self.lora(super().forward(x), x)
            return output
        return F.gelu(self.lora(product(x), x))


def _is_replaceable(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.LayerNorm)
        and as_written(module)[0] in _LAYER_NORMS
        and len(module.normalized_shape) == 1
        and module.weight is not None
        and module.bias is not None
    )


def _take_projection(network: Any) -> tuple[str, ...]:
    """Take the matrix with which the text tower ends out of a network, and return the names of its tensors, if any."""
    prefix, tower = ("text.", network.text) if hasattr(network, "text") else ("", network)
    for name, without in (("proj", nn.Identity()), ("text_projection", None)):
        last = getattr(tower, name, None)
        if isinstance(last, nn.Parameter | nn.Linear):
            setattr(tower, name, without)
            found = [f"{prefix}{name}"]
            if isinstance(last, nn.Linear):
                found = [f"{prefix}{name}.{parameter}" for parameter, _ in last.named_parameters()]
            return tuple(found)
    return ()

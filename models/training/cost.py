"""What a training step costs: floating-point operations and memory, counted without computing anything.

The networks are on the meta device; torch counts their matrix products and convolutions, a multiplication and an
addition as two operations. The memory for the backward is what autograd keeps, with attention that recomputes its
maps, as fused kernels do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.text_map import TextMap
from sds_clip.models.teacher.family import Family
from sds_clip.models.teacher.folder import read_json, vae_factor
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import trained_parameters

FLOAT32, _BFLOAT16 = 4, 2  # bytes
_OF_TRAINING = 3 * FLOAT32  # a number's gradient and its two moments

Work = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """One sample through one part: floating-point operations, and bytes kept for the backward."""

    name: str
    parameters: int
    forward: int
    both: int = 0
    kept_bytes: int = 0


def step_operations(config: FinetuneConfig, clip: Cost, denoiser: Cost) -> float:
    """Return the operations of a step, as a mean over logged and other steps.

    Captions are assumed to be in the cache of embeddings: embedding them adds less than a hundredth.
    """
    encoded = clip.both
    if config.micro_batch_size and config.micro_batch_size < config.batch_size:
        encoded += clip.forward  # the features of the whole batch come first
    if config.uses_base:
        encoded += clip.forward  # the base's features
    of_clip = float(config.batch_size * encoded)
    if config.objective == "clip":
        return of_clip
    passed = denoiser.forward if config.gradient == "sds" else denoiser.both
    if config.activation_checkpointing and config.gradient == "full":
        passed += denoiser.forward
    passed *= 1 if config.guidance is None else 2
    return of_clip + config.teacher_batch_size * (passed + denoiser.forward / config.log_every)


def score_operations(config: FinetuneConfig, denoiser: Cost) -> float:
    """Return the operations of a sample's scores by the teacher: each caption at each noise level, once in a run."""
    captions = config.negatives_count + (config.score_candidates == "all")
    return float(config.score_draws * captions * denoiser.forward)


def peak_bytes(
    config: FinetuneConfig, clip: Cost, denoiser: Cost, *, trained: int, other_bytes: int, mapper: int
) -> float:
    """Return the memory of a run's steps at their peak. With activation checkpointing it is less.

    `trained` counts the student's numbers that are trained, and `mapper` those of the mapper. `other_bytes` are those
    of the teacher's other weights: its text encoder's and its VAE's. The activations of the VAE, which encodes images
    before the first step, are not counted.

    The base stays in memory beside the student. CLIP and the denoiser never keep activations at the same time if
    the batch is encoded in several parts.
    """
    weights = float(2 * FLOAT32 * clip.parameters + _OF_TRAINING * trained)
    of_clip = min(config.micro_batch_size or config.batch_size, config.batch_size) * clip.kept_bytes
    if config.objective == "clip":
        return weights + of_clip
    size = FLOAT32 if config.teacher_precision == "float32" else _BFLOAT16
    weights += size * denoiser.parameters + other_bytes + (FLOAT32 + _OF_TRAINING) * mapper
    # The denoiser's are counted in bfloat16.
    of_denoiser = config.teacher_batch_size * denoiser.kept_bytes * size / _BFLOAT16
    has_no_graph = config.gradient == "sds" or config.objective == "score"
    return weights + max(of_clip, 0 if has_no_graph else of_denoiser)


def clip_costs(clip: Clip, config: FinetuneConfig) -> tuple[Cost, Cost, Cost, int]:
    """Count an image with a caption, an image, and a caption, in float32, and the numbers that are trained.

    The pair keeps what its hard negatives do, too.
    """
    network: Any = deepcopy(clip.network).to("meta")
    pixels = torch.empty(1, 3, *clip.image_size, device="meta")
    tokens = torch.zeros(1, clip.context_length, dtype=torch.long, device="meta")
    student = trained_parameters(network, config)
    text_map: nn.Module = nn.Identity()
    if config.trainable == "text-map":
        text_map = TextMap(clip.embed_dim).to("meta")
        student = dict(text_map.named_parameters())
    trained = sum(value.numel() for value in student.values())
    image, caption = partial(network.encode_image, pixels), partial(network.encode_text, tokens)
    pair = count(clip.architecture, network, lambda with_graph: image() + text_map(caption()))
    negatives = config.negatives_count if config.uses_negatives else 0
    of_negatives = negatives * kept_bytes(network, lambda with_graph: text_map(caption()))
    return (
        replace(pair, kept_bytes=pair.kept_bytes + of_negatives),
        Cost("image", 0, operations(image)),
        Cost("caption", 0, operations(caption)),
        trained,
    )


def denoiser_cost(folder: Path, family: Family) -> Cost:
    """Count a teacher's frozen denoiser in bfloat16; its backward goes only to the latents."""
    import diffusers

    part = folder / family.denoiser
    kind: Any = getattr(diffusers, str(family.classes[family.denoiser]))
    with torch.device("meta"):
        network = kind.from_config(kind.load_config(part)).requires_grad_(False)
    nn.Module.to(network, torch.bfloat16)  # diffusers' own warns of parts that no teacher has
    channels, side = family.latents(read_json(part / "config.json"))
    with torch.device("meta"):
        timesteps = torch.zeros(1, dtype=torch.long)
        caption = family.condition(
            torch.empty(1, family.tokens, family.caption_width(network.config), dtype=torch.bfloat16)
        )

    def forward(with_graph: bool) -> Tensor:
        shape = (1, channels, side, side)
        latents = torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=with_graph)
        return family.output(network, latents, timesteps, caption, resolution_px=8 * side)

    return count(family.denoiser, network, forward)


def vae_cost(folder: Path, family: Family) -> Cost:
    """Count a teacher's VAE, and the encoding of an image at the size of its latents times its factor."""
    import diffusers

    side = family.latents(read_json(folder / family.denoiser / "config.json"))[1] * vae_factor(folder)
    with torch.device("meta"):
        vae: Any = diffusers.AutoencoderKL.from_config(diffusers.AutoencoderKL.load_config(folder / "vae"))
        encoding = operations(lambda: vae.encode(torch.empty(1, 3, side, side)))
    return Cost("vae", count_parameters(vae), encoding)


def text_encoder_parameters(folder: Path, family: Family) -> dict[str, int]:
    import transformers

    found = {}
    for part in family.text_encoders:
        kind: Any = getattr(transformers, str(family.classes[part]))
        config = kind.config_class.from_pretrained(folder / part)
        with torch.device("meta"):
            found[part] = count_parameters(kind(config))
    return found


def bytes_beside(folder: Path, family: Family, dtype: torch.dtype, vae: Cost | None) -> int:
    """Count a teacher's weights beside its denoiser, which is held in `dtype`: its text encoders, and its VAE."""
    texts = text_encoder_parameters(folder, family).items()
    of_texts = sum(size * family.text_dtype(part, dtype).itemsize for part, size in texts)
    return of_texts + (0 if vae is None else FLOAT32 * vae.parameters)


def mapper_parameters(clip: Clip, folder: Path, family: Family) -> int:
    channels, side = family.latents(read_json(folder / family.denoiser / "config.json"))
    return int((clip.embed_dim + 1) * channels * side**2)


def count(name: str, module: nn.Module, forward: Callable[[bool], Tensor]) -> Cost:
    """Count a forward, which is told whether a graph is needed, and its backward."""
    return Cost(
        name,
        count_parameters(module),
        operations(lambda: forward(False)),
        operations_with_backward(forward),
        kept_bytes(module, forward),
    )


def operations(work: Work) -> int:
    """Return the floating-point operations of work. A graph adds none; without one, the counter refuses some views."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def operations_with_backward(forward: Callable[[bool], Tensor]) -> int:
    """Return the floating-point operations of a forward and its backward."""
    with FlopCounterMode(display=False) as counter:
        output = forward(True)
        torch.autograd.backward(output, torch.empty_like(output))
    return int(counter.get_total_flops())


def kept_bytes(module: nn.Module, forward: Callable[[bool], Tensor]) -> int:
    """Return the bytes that a forward keeps for its backward, without the parameters. Shared storage counts once."""
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage()._cdata] = value  # held, so that no other storage gets its address
        return value

    with saved_tensors_hooks(keep, lambda value: value), _fused_attention(keep):
        output = forward(True)
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    del output
    return sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in own)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _fused_attention(keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block, attention keeps only its inputs and its output."""
    plain = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        output: Tensor = checkpoint(plain, query, key, value, use_reentrant=False, **options)
        for tensor in (query, key, value, output):
            keep(tensor)
        return output

    functional: Any = F
    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain

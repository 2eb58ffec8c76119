"""One step of fine-tuning: encode, compute the losses, differentiate, update."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sds_clip.models.choices import Conflicts
from sds_clip.models.clip.short_texts import encode_text, without_padding
from sds_clip.models.clip.text_map import TextMap
from sds_clip.models.data.batches import Batch
from sds_clip.models.errors import NotFiniteError
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.frozen import Frozen
from sds_clip.models.training.log import synchronize
from sds_clip.models.training.objective import TEACHER_WEIGHT, WEIGHED_STEPS, Features, Losses, Objective
from sds_clip.models.training.optimizer import gradient_norm, set_learning_rate
from sds_clip.models.training.part import Part, sub_batch
from sds_clip.models.training.processes import average, average_gradients

MAX_LOGIT_SCALE = math.log(100)  # CLIP's own ceiling


class Trainer:
    """Owns what a step changes: the parameters of student and mapper, and the optimizer's state."""

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Callable[[list[str]], Int[Tensor, "n context"]],
        objective: Objective,
        student: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
        text_map: TextMap | None = None,
        base: nn.Module | None = None,
        teacher: Teacher | None = None,
        world_size: int = 1,
    ) -> None:
        """With a `text_map` both towers are frozen. What they, or a `base`, make of an input is computed once."""
        self.network: Any = network
        self.optimizer = optimizer
        self.student = student
        self.mapper = objective.mapper
        self._groups = {"gradient_norm": self.student, "mapper_gradient_norm": self.mapper}
        self._tokenizer = tokenizer
        self.objective = objective
        self._device, self._dtype = device, dtype
        self._teacher = teacher
        self._part_size = objective.config.teacher_batch_size // world_size
        self._chunk_size = objective.config.micro_batch_size
        self.text_map = text_map
        size = self._chunk_size or objective.config.batch_size // world_size
        self._base: Any = base
        self._frozen_images = Frozen(partial(self._encode_image, of=base), size)
        self._frozen_texts = Frozen(partial(self._encode_text, of=base), size)
        self._learnt: dict[str, float] = {}
        self.embedding_s = 0.0
        """Time spent on the teacher's caption embeddings, in total."""

    @property
    def config(self) -> FinetuneConfig:
        return self.objective.config

    def knows_image(self, index: int) -> bool:
        """Whether a sample's image is embedded already, so that no step needs its pixels again."""
        return self.text_map is not None and index in self._frozen_images

    def step(self, batch: Batch, *, with_gap: bool = False) -> dict[str, float]:
        """Take one step: `gradients`, then `update`."""
        values, norms = self.gradients(batch, with_gap=with_gap)
        self.update(norms)
        return values

    def gradients(
        self, batch: Batch, *, with_gap: bool = False
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Compute the gradients of a step on this process's part of a batch. This changes no parameter.

        Returns the losses and gradient norms, averaged over all processes, and the norms for `update`.

        Raises:
            NotFiniteError: a loss or a gradient is not finite.
        """
        set_learning_rate(self.optimizer, self.config, batch.step, self.objective.steps)
        terms = self._differentiate(batch, with_gap)
        average_gradients([*self.student.values(), *self.mapper.values()])
        norms = {name: gradient_norm(group.values()) for name, group in self._groups.items() if group}
        values = _values(terms | norms)
        # Checked after the average, so that all processes stop together.
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise NotFiniteError(
                (
                    f"Step {batch.step + 1}: {', '.join(broken)} is not finite. The last checkpoint is kept, "
                    "but continuing from it would fail again in the same way. Start a new run with a lower "
                    "learning rate, a lower lambda, a higher score_temperature, or float32."
                ),
                len(broken),
            )
        return values, norms

    def update(self, norms: dict[str, Tensor]) -> None:
        """Change the parameters by the gradients, which have these norms."""
        for name, norm in norms.items():
            nn.utils.clip_grads_with_norm_(self._groups[name].values(), self.config.max_gradient_norm, norm)
        self.objective.state.update(self._learnt)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # A frozen logit_scale keeps every bit. SigLIP's have no ceiling: those that are published are beyond CLIP's.
        if "logit_scale" in self.student and self.network.logit_bias is None:
            with torch.no_grad():
                self.network.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def _differentiate(self, batch: Batch, with_gap: bool) -> dict[str, Tensor]:
        """Leave this process's gradients on the parameters, and return the terms of its loss."""
        part = self._part_of(batch)
        with plain_attention(self._device, self._teacher):
            images, texts = self._images(batch), self._texts(batch.captions)
            flat = [text for texts_of_one in part.negatives for text in texts_of_one]
            negatives = self._texts(flat) if flat else None
            paired = [place for place, other in enumerate(batch.others) if other is not None]
            paired = paired if self.config.paraphrase_weight else []
            others = self._texts([batch.others[place] or "" for place in paired]) if paired else None
            text = F.normalize(texts.features, dim=-1)
            features = Features(
                images.features,
                F.normalize(images.features, dim=-1),
                text,
                F.normalize(negatives.features, dim=-1) if negatives else text[:0],
                (text[paired], F.normalize(others.features, dim=-1) if others else text[:0]),
                self.network.logit_scale.exp(),
                self.network.logit_bias,
                base=self._of_base(batch) if self.config.uses_base else None,
            )
            losses = self.objective(features, part, batch.step, with_gap=with_gap)
            self._learnt = dict(losses.state)
            balance, factor = _backward(losses, images.features, self.config.conflicts, self._factor)
            if losses.teacher is not None and self.config.teacher_weight == "auto":
                balance[TEACHER_WEIGHT] = torch.tensor(
                    factor * self.objective.teacher_weight, device=self._device
                )
                for parameter in self.mapper.values():
                    if parameter.grad is not None:
                        parameter.grad *= factor
            for encoded in (images, texts, negatives, others):
                if encoded is not None:
                    encoded.backward()
        total = losses.contrastive if losses.teacher is None else losses.contrastive + factor * losses.teacher
        return (
            {name: value.detach() for name, value in losses.terms.items()}
            | balance
            | {"loss": total.detach()}
        )

    def _factor(self, teacher: Tensor, contrastive: Tensor) -> float:
        """Return what lambda: auto multiplies the teacher's loss by, from the squares of both gradients' norms.

        In its warm-up, the weight is the geometric mean of those by which the gradients were alike, this step's among
        them. So no single step decides it. Until both losses reach the student, and after the warm-up, it stays.
        """
        known, weight = int(self.objective.state.get(WEIGHED_STEPS, 0)), self.objective.teacher_weight
        if self.config.teacher_weight != "auto" or known == self.config.warmup_steps:
            return 1.0
        if not (teacher > 0 and contrastive > 0):
            return 1.0
        alike = weight * float((contrastive / teacher).sqrt())
        mean = float(weight ** (known / (known + 1)) * alike ** (1 / (known + 1)))
        self._learnt |= {TEACHER_WEIGHT: mean, WEIGHED_STEPS: known + 1}
        return mean / weight

    def _images(self, batch: Batch) -> "Encoded":
        if self.text_map is None:
            return Encoded(self._encode_image, batch.pixels.to(self._device), self._chunk_size)
        return Encoded(lambda features: features, self._known_images(batch), None, trained=False)

    def _texts(self, texts: Sequence[str]) -> "Encoded":
        if self.text_map is None:
            tokens = without_padding(self.network, self._tokenizer(list(texts)))
            return Encoded(self._encode_text, tokens.to(self._device), self._chunk_size)
        return Encoded(self.text_map, self._known_texts(texts), None)

    def _known_images(self, batch: Batch) -> Tensor:
        rows = {place: row for row, place in enumerate(batch.decoded)}
        return self._frozen_images(
            batch.indices.tolist(),
            lambda places: batch.pixels[[rows[place] for place in places]].to(self._device),
        )

    def _known_texts(self, texts: Sequence[str]) -> Tensor:
        # Whole contexts: an embedding must not depend on the other texts that are not known yet.
        return self._frozen_texts(
            texts, lambda places: self._tokenizer([texts[place] for place in places]).to(self._device)
        )

    def _of_base(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        image, text = self._known_images(batch), self._known_texts(batch.captions)
        return F.normalize(image, dim=-1), F.normalize(text, dim=-1), self._base.logit_scale.detach().exp()

    def _part_of(self, batch: Batch) -> Part:
        places = sub_batch(len(batch.captions), self._part_size)
        captions = [batch.captions[place] for place in places]
        count = self.config.negatives_count if self.config.uses_negatives else 0
        return Part(
            places=places,
            samples=batch.indices[places].tolist(),
            captions=captions,
            negatives=[batch.negatives[place][:count] for place in places],
            embeddings=self._embed(captions) if self.config.uses_sds else None,
        )

    def _embed(self, captions: list[str]) -> Tensor:
        assert self.objective.teacher_loss is not None
        synchronize(self._device)  # the optimizer's part of the step before may still be queued
        began = time.monotonic()
        embeddings = self.objective.teacher_loss.teacher.encode_captions(captions)
        synchronize(self._device)
        self.embedding_s += time.monotonic() - began
        return embeddings

    def _encode_image(self, pixels: Float[Tensor, "b 3 h w"], of: Any = None) -> Float[Tensor, "b d"]:
        with self._autocast():
            features: Tensor = (of or self.network).encode_image(pixels, normalize=False)
        return features.float()

    def _encode_text(self, tokens: Int[Tensor, "n length"], of: Any = None) -> Float[Tensor, "n d"]:
        with self._autocast():
            features = encode_text(of or self.network, tokens)
        return features.float()

    def _autocast(self) -> torch.autocast:
        """Autocast for the student only: the teacher has its own format, and losses are float32."""
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not torch.float32)


class Encoded:
    """A batch's features, detached from their graph, and the way back into it (GradCache, arXiv 2101.06983).

    The loss is computed on `features`, and its gradient stops there; `backward` takes it through the encoder
    chunk by chunk. So the loss sees the whole batch, while only one chunk's graph is in memory. A batch of
    one chunk is encoded once, any other twice (decision 9). If nothing behind the features is `trained`, no gradient on
    them is computed.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        inputs: Tensor,
        chunk_size: int | None,
        *,
        trained: bool = True,
    ) -> None:
        self._encode = encode
        self._chunks = torch.split(inputs, chunk_size or max(len(inputs), 1))
        with torch.set_grad_enabled(len(self._chunks) == 1):
            encoded = torch.cat([encode(chunk) for chunk in self._chunks])
        self._graph = encoded if len(self._chunks) == 1 else None
        self.features: Float[Tensor, "n d"] = encoded.detach().requires_grad_(trained)

    def backward(self) -> None:
        """Add the gradient that the loss left on `features` to the encoder's gradients."""
        if self.features.grad is None:
            return
        if self._graph is not None:
            _push(self._graph, self.features.grad)
            return
        sizes = [len(chunk) for chunk in self._chunks]
        for chunk, gradient in zip(self._chunks, torch.split(self.features.grad, sizes), strict=True):
            _push(self._encode(chunk), gradient)


def _push(features: Tensor, gradient: Tensor) -> None:
    if features.requires_grad:  # False if the whole tower is frozen
        torch.autograd.backward(features, gradient)


def _backward(
    losses: Losses, image_features: Tensor, conflicts: Conflicts,
    factor_of: Callable[[Tensor, Tensor], float] = lambda *_: 1.0,
) -> tuple[dict[str, Tensor], float]:  # fmt: skip
    """Backpropagate both losses. Return how their gradients on the image features compare, and the teacher's factor.

    The share is |g_teacher| / |g_contrastive|, and the cosine is that of the angle between them, over the batch of all
    processes. The two go back one after the other, which costs no more than their sum. With `project`, g_teacher loses
    its part along g_contrastive where the cosine is negative (PCGrad, arXiv 2001.06782). First it is multiplied by
    `factor_of` the squares of both norms.
    """
    if losses.teacher is None:
        torch.autograd.backward(losses.contrastive)
        return {}, 1.0
    torch.autograd.backward(losses.teacher)
    of_teacher = image_features.grad if image_features.grad is not None else torch.zeros_like(image_features)
    image_features.grad = None
    torch.autograd.backward(losses.contrastive)
    assert image_features.grad is not None
    of_contrastive = image_features.grad
    products = [of_teacher.square(), of_contrastive.square(), of_teacher * of_contrastive]
    teacher, contrastive, both = average(torch.stack([product.sum() for product in products]))
    factor = factor_of(teacher, contrastive)
    of_teacher, teacher, both = factor * of_teacher, factor**2 * teacher, factor * both
    image_features.grad = of_teacher + of_contrastive
    tiny = torch.finfo(torch.float32).tiny
    contrastive = contrastive.clamp_min(tiny)
    if conflicts == "project":
        image_features.grad -= (both / contrastive).clamp(max=0) * of_contrastive
    teacher_norm, contrastive_norm = teacher.sqrt(), contrastive.sqrt()
    balance = {
        "teacher_gradient_share": teacher_norm / contrastive_norm,
        "teacher_gradient_cosine": both / (teacher_norm * contrastive_norm).clamp_min(tiny),
    }
    return balance, factor


def plain_attention(device: torch.device, teacher: Teacher | None) -> AbstractContextManager[None]:
    """Choose the attention kernel: on a GPU, torch's choice; on a CPU, the plain one, whose backward is faster.

    For large latents the fused one is faster there too, and keeps no maps, which are 4,096 x 4,096 for the 64 x 64
    latents of Stable Diffusion 1.5 (docs/benchmarks.md).
    """
    is_small = teacher is None or prod(teacher.latent_shape[1:]) <= 32**2
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" and is_small else nullcontext()


def _values(terms: dict[str, Tensor]) -> dict[str, float]:
    """Return all numbers, averaged over the processes, in one transfer from the device."""
    numbers = average(torch.stack([value.float() for value in terms.values()])).tolist()
    return dict(zip(terms, numbers, strict=True))

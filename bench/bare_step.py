"""The bare parts of a training step, from inputs that are on the device already.

They are the forward and backward of student, mapper, teacher and losses at the step's shapes, in the same formats and
with the same attention kernel. They include no tokenizing, embedding of captions, random draws, checks, clipping or
transfers, and no update of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.train_parts import CONDITION, FULL, NOISE, SCORE, SDS, SWAPS, TEXT_MAP, KnownLatents, Model
from sds_clip.models.choices import NOISE_CONTRAST_GROUP
from sds_clip.models.clip.short_texts import encode_text, without_padding
from sds_clip.models.data.batches import Batch
from sds_clip.models.losses.noise_contrast import TEMPERATURE
from sds_clip.models.teacher.diffusion_score import Draws, draws
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.distillation.teacher_loss import timestep_range
from sds_clip.models.training.part import sub_batch
from sds_clip.models.training.randomness import draw_noise, draw_timesteps
from sds_clip.models.training.trainer import plain_attention


@dataclass(frozen=True, eq=False)
class StepInputs:
    """The inputs of every variant's step on the device, as the trainer would make them from the same batch."""

    pixels: Float[Tensor, "b 3 h w"]
    tokens: Int[Tensor, "b s"]
    negative_tokens: Int[Tensor, "m t"]
    embeddings: tuple[Tensor, Tensor, Tensor]
    """What the student makes of the three above."""
    places: list[int]
    """Of the samples that the teacher or their negatives see."""
    rows: Int[Tensor, "p n"]
    """Their captions and negatives among the texts of the batch, which end with all negatives."""
    valid: Bool[Tensor, "p n"]
    """Where a row is not only there because other captions have more negatives."""
    captions: Float[Tensor, "p n s e"]
    """The same texts as the teacher reads them."""
    latents: Float[Tensor, "p c h w"]
    timesteps: Int[Tensor, p]
    noise: Float[Tensor, "p c h w"]
    score_draws: list[Draws]
    temperature: float
    teacher_weight: float


def prepare(model: Model, config: FinetuneConfig, batch: Batch) -> StepInputs:
    """Make everything that is not part of forward or backward."""
    device, teacher = model.shapes.place, model.teacher
    places = sub_batch(len(batch.captions), config.teacher_batch_size)
    samples = [int(batch.indices[place]) for place in places]
    negatives = [batch.negatives[place] for place in places]
    flat = [text for own in negatives for text in own]
    first = len(batch.captions)
    rows, width = [], 1 + config.negatives_count
    for place, own in zip(places, negatives, strict=True):
        rows.append([place, *range(first, first + len(own)), *[place] * (width - 1 - len(own))])
        first += len(own)
    texts = [*batch.captions, *flat]
    low, high = timestep_range(config, teacher.timesteps, batch.step, 1)
    tokens, negative_tokens = (
        without_padding(model.network, model.tokenizer(each)).to(device) for each in (batch.captions, flat)
    )
    inputs = (batch.pixels.to(device), tokens, negative_tokens)
    with plain_attention(device, model.teacher), torch.no_grad():
        embeddings = encode(model, *inputs)
    scored = [
        draws(
            config.score_draws, teacher.latent_shape, teacher.timesteps,
            seed=config.negatives_seed * 1_000_003 + sample, t_min=config.score_t_min, t_max=config.score_t_max,
        )
        for sample in samples
    ]  # fmt: skip
    return StepInputs(
        *inputs,
        embeddings=embeddings,
        places=places,
        rows=torch.tensor(rows, device=device),
        valid=torch.tensor([[n <= len(own) for n in range(width)] for own in negatives], device=device),
        captions=torch.stack([teacher.encode_captions([texts[row] for row in of_one]) for of_one in rows]),
        latents=KnownLatents(teacher)(samples),
        timesteps=draw_timesteps(config.seed, batch.step, samples, low, high).to(device),
        noise=draw_noise(config.seed, batch.step, samples, teacher.latent_shape).to(device),
        score_draws=[Draws(each.timesteps.to(device), each.noise.to(device)) for each in scored],
        temperature=config.score_temperature,
        teacher_weight=float(config.teacher_weight),
    )


def bare_step(model: Model, ready: StepInputs, variant: str) -> Tensor:
    """Leave the gradients of a variant's loss on the parameters, and return the loss."""
    with plain_attention(model.shapes.place, model.teacher):
        if variant == TEXT_MAP:
            image_features, texts, negatives = ready.embeddings
            text_features, negative_features = (
                texts @ model.text_map.matrix,
                negatives @ model.text_map.matrix,
            )
        else:
            negative_tokens = ready.negative_tokens if variant in SWAPS else None
            image_features, text_features, negative_features = encode(
                model, ready.pixels, ready.tokens, negative_tokens
            )
        image, text = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        scale = model.network.logit_scale.exp()
        logits = scale * image @ text.T
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        seen = image[ready.places]
        if variant in (FULL, SDS):
            latents = model.mapper.linear(seen).view_as(ready.noise)
            teachers = _denoising_loss(model, latents, ready.captions[:, 0], ready, variant)
            loss = loss + ready.teacher_weight * teachers
        elif variant in (CONDITION, NOISE):
            tokens = model.tokens.linear(seen).view(-1, *model.tokens.shape).to(model.teacher.dtype)
            if variant == CONDITION:
                teachers = _denoising_loss(model, ready.latents, tokens, ready, FULL)
            else:
                teachers = _noise_contrast(model, ready, tokens)
            loss = loss + ready.teacher_weight * teachers
        else:
            candidates = torch.cat([text, F.normalize(negative_features, dim=-1)])[ready.rows]
            chosen = _log_softmax(scale * (seen[:, None] * candidates).sum(dim=-1), ready.valid)
            if variant == SCORE:
                teachers = _log_softmax(-_errors(model, ready) / ready.temperature, ready.valid)
                choice = F.kl_div(chosen, teachers, reduction="batchmean", log_target=True)
                loss = loss + ready.teacher_weight * choice
            else:
                loss = loss - chosen[:, 0].mean()
        torch.autograd.backward(loss)
    return loss.detach()


def encode(
    model: Model, pixels: Tensor, tokens: Tensor, negative_tokens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the student's features of images, captions and negatives."""
    dtype = model.shapes.dtype
    with torch.autocast(model.shapes.place.type, dtype, enabled=dtype is not torch.float32):
        images, texts = model.network.encode_image(pixels), encode_text(model.network, tokens)
        negatives = texts[:0] if negative_tokens is None else encode_text(model.network, negative_tokens)
    return images.float(), texts.float(), negatives.float()


def clear(model: Model) -> None:
    for parameter in model.trained:
        parameter.grad = None


def _denoising_loss(
    model: Model, latents: Tensor, captions: Tensor, ready: StepInputs, gradient: str
) -> Tensor:
    abar = model.teacher.levels.signal_power[ready.timesteps].view(-1, 1, 1, 1)
    with torch.set_grad_enabled(gradient == FULL):
        noisy = abar.sqrt() * latents + (1 - abar).sqrt() * ready.noise
        error = _denoised(model, noisy, ready.timesteps, captions) - ready.noise
        loss: Tensor = error.square().mean()
    if gradient == SDS:
        pull = 2 / error.numel() * abar.sqrt() * error
        loss = loss + (pull * (latents - latents.detach())).sum()
    return loss


def _noise_contrast(model: Model, ready: StepInputs, tokens: Tensor) -> Tensor:
    """The images of each group against one another, as one batch of the denoiser."""
    abar = model.teacher.levels.signal_power[ready.timesteps].view(-1, 1, 1, 1)
    noisy = abar.sqrt() * ready.latents + (1 - abar).sqrt() * ready.noise
    count, group = len(noisy), NOISE_CONTRAST_GROUP
    turns = [
        [place // group * group + (place + turn) % group for place in range(count)] for turn in range(group)
    ]
    output = _denoised(
        model,
        noisy.repeat(group, 1, 1, 1),
        ready.timesteps.repeat(group),
        torch.cat([tokens[turn] for turn in turns]),
    )
    offset = (1 - abar).sqrt() * noisy  # the noise without it has the direction of the velocity
    velocities = torch.cat([ready.noise, output]) - offset.repeat(1 + group, 1, 1, 1)
    true, own, *others = torch.split(F.normalize(velocities.flatten(1), dim=-1), count)
    logits = [(own * each).sum(dim=-1) / TEMPERATURE for each in (true, *others)]
    return -torch.stack(logits, dim=-1).log_softmax(dim=-1)[:, 0].mean()


@torch.no_grad()
def _errors(model: Model, ready: StepInputs) -> Float[Tensor, "p n"]:
    """The velocity's error of each sample under each of its texts, one sample after the other; of one text alone, 0."""
    errors = []
    samples = zip(ready.latents, ready.captions, ready.valid, ready.score_draws, strict=True)
    for latents, captions, valid, drawn in samples:
        if int(valid.sum()) == 1:
            errors.append(latents.new_zeros(len(captions)))
            continue
        abar = model.teacher.levels.signal_power[drawn.timesteps].view(-1, 1, 1, 1)
        noisy = abar.sqrt() * latents + (1 - abar).sqrt() * drawn.noise
        texts, levels = len(captions), len(drawn.timesteps)
        output = _denoised(
            model,
            noisy.repeat(texts, 1, 1, 1),
            drawn.timesteps.repeat(texts),
            captions.repeat_interleave(levels, dim=0),
        )
        squares = (output - drawn.noise.repeat(texts, 1, 1, 1)).square() / abar.repeat(texts, 1, 1, 1)
        errors.append(squares.view(texts, -1).mean(dim=1))
    return torch.stack(errors)


def _denoised(model: Model, noisy: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
    output: Tensor = model.teacher.denoiser(
        noisy.to(model.teacher.dtype), timesteps, captions, return_dict=False
    )[0]
    return output.float()


def _log_softmax(logits: Tensor, valid: Tensor) -> Tensor:
    return logits.masked_fill(~valid, torch.finfo(torch.float32).min).log_softmax(dim=1)

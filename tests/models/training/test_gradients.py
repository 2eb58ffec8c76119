"""The gradient of a whole step, against the formula written out with diffusers' and open_clip's own parts."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    PixArtTransformer2DModel,
    UNet2DConditionModel,
)
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from sds_clip.models.clip.lora import attach
from sds_clip.models.data.batches import batch_indices
from sds_clip.models.mapper import Mapper
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.training.parts import Parts, WithNegatives
from sds_clip.models.training.randomness import draw_noise, draw_timesteps
from sds_clip.models.training.run import train
from tests.teachers import save_pixart_teacher, save_sd_teacher
from tests.training import PLACE, changed, configure, frozen_state, gradients, last_checkpoint

UNCLIPPED = 1e9
ONE_IMAGE = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
on_families = pytest.mark.parametrize(
    "save",
    [save_sd_teacher, partial(save_sd_teacher, prediction_type="v_prediction"), save_pixart_teacher],
    ids=["epsilon", "velocity", "pixart"],
)


def first_gradients(out: Path, parts: Parts, **options: object) -> dict[str, Tensor]:
    train(configure(steps=1, max_gradient_norm=UNCLIPPED, **options), parts, out, PLACE)
    return gradients(last_checkpoint(out))


class Step:
    """What the first step of a run is computed from: its samples, its draws, and the student's features of them."""

    def __init__(self, parts: Parts, seed: int) -> None:
        self.indices = indices = [int(index) for index in batch_indices(len(parts.pairs), 8, seed, 0)]
        self.texts = [parts.pairs.sample(index).captions[0] for index in indices]
        self.images = [parts.pairs.image(index) for index in indices]
        self.noise = draw_noise(seed, 0, indices, (4, 8, 8))
        self.timesteps = draw_timesteps(seed, 0, indices, 20, 979)  # 0.02 and 0.98 of 0..999, rounded inwards
        self.network: Any = deepcopy(parts.base.network).requires_grad_(True)
        self.pixels = torch.stack([parts.base.preprocess(image) for image in self.images])
        self.image = self.network.encode_image(self.pixels, normalize=True)
        self.text = self.network.encode_text(parts.base.tokenizer(self.texts), normalize=True)

    def predicted(self, output: Tensor, noisy: Tensor, scheduler: Any) -> Tensor:
        """The noise by a denoiser's output, which may be a velocity."""
        if scheduler.config.prediction_type != "v_prediction":
            return output
        abar = scheduler.alphas_cumprod[self.timesteps].view(-1, 1, 1, 1)
        return abar.sqrt() * output + (1 - abar).sqrt() * noisy

    def gradients(self, of_teacher: Tensor, mapper: Mapper) -> dict[str, Tensor]:
        """Those of ClipLoss plus the teacher's weighted loss, by autograd alone."""
        contrastive = ClipLoss()(self.image, self.text, self.network.logit_scale.exp())
        (contrastive + of_teacher).backward()
        named = {f"student.{name}": value for name, value in self.network.named_parameters()}
        named |= {f"mapper.{name}": value for name, value in mapper.named_parameters()}
        return {name: value.grad for name, value in named.items() if value.grad is not None}


def formula(parts: Parts, folder: Path, weight: float, seed: int) -> dict[str, Tensor]:
    """The gradients with z_0 = W f(x) under x's caption, denoiser included, by diffusers' own networks."""
    step, mapper = Step(parts, seed), Mapper(32, (4, 8, 8), seed=seed)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    noisy = scheduler.add_noise(mapper.linear(step.image).view(8, 4, 8, 8), step.noise, step.timesteps)
    pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    with torch.no_grad():
        embeddings, *masks = pipeline.encode_prompt(step.texts, device="cpu", **ONE_IMAGE)
    if hasattr(pipeline, "transformer"):
        options = {"encoder_attention_mask": masks[0]}
        output = pipeline.transformer(noisy, embeddings, step.timesteps, **options).sample[:, :4]
    else:
        output = pipeline.unet(noisy, step.timesteps, embeddings).sample
    predicted = step.predicted(output, noisy, scheduler)
    return step.gradients(weight * F.mse_loss(predicted, step.noise), mapper)


@on_families
def test_a_step_has_the_gradient_of_the_formula(
    save: Callable[..., Path], parts: Parts, tmp_path: Path
) -> None:
    folder = save(tmp_path / "teacher", seed=3)
    own = Parts(parts.base, parts.pairs, load_teacher(str(folder), device="cpu", precision="float32"))
    expected = formula(own, folder, 0.7, seed=5)
    found = first_gradients(tmp_path / "out", own, sds_weight=0.7, seed=5, trainable="all")
    assert len(found) == len(list(parts.base.network.parameters())) + 2
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)


Loss = Callable[[list[Tensor], Tensor, Callable[[Tensor], Tensor]], Tensor]


def denoising_error(predicted: list[Tensor], noise: Tensor, velocity: Callable[[Tensor], Tensor]) -> Tensor:
    """L_condition, of the noise predicted for all images under their own features."""
    return F.mse_loss(predicted[0], noise)


def noise_contrast(predicted: list[Tensor], noise: Tensor, velocity: Callable[[Tensor], Tensor]) -> Tensor:
    """L_noise, of the noise predicted under the own features, and under those of 1 to 3 places on in each four."""
    own, *others = (velocity(each).flatten(1) for each in predicted)
    likeness = [F.cosine_similarity(own, each) for each in (velocity(noise).flatten(1), *others)]
    return F.cross_entropy(torch.stack(likeness, dim=1) / 0.1, torch.zeros(8, dtype=torch.long))


def condition_formula(parts: Parts, folder: Path, weight: float, seed: int, loss: Loss) -> dict[str, Tensor]:
    """The gradients with W f(x) as the condition of images' own latents, by diffusers' own networks."""
    step, mapper = Step(parts, seed), Mapper(32, (3, 32), seed=seed)
    view = teacher_view(parts.base, 64)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    with torch.no_grad():
        encoded = vae.encode(torch.stack([view(image) for image in step.images])).latent_dist.mode()
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    noisy = scheduler.add_noise(encoded * vae.config.scaling_factor, step.noise, step.timesteps)
    tokens = mapper.linear(step.image).view(8, 3, 32)
    if (folder / "transformer").exists():
        transformer = PixArtTransformer2DModel.from_pretrained(folder, subfolder="transformer")
        denoiser = partial(transformer, encoder_attention_mask=torch.ones(8, 3))
    else:
        denoiser = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    predicted = []
    for turn in range(4):
        of_whom = [place // 4 * 4 + (place + turn) % 4 for place in range(8)]
        output = denoiser(noisy, timestep=step.timesteps, encoder_hidden_states=tokens[of_whom]).sample[:, :4]
        predicted.append(step.predicted(output, noisy, scheduler))
    abar = scheduler.alphas_cumprod[step.timesteps].view(-1, 1, 1, 1)

    def velocity(noise: Tensor) -> Tensor:
        latents = (noisy - (1 - abar).sqrt() * noise) / abar.sqrt()
        found: Tensor = scheduler.get_velocity(latents, noise, step.timesteps)
        return found

    return step.gradients(weight * loss(predicted, step.noise, velocity), mapper)


@on_families
@pytest.mark.parametrize(
    ("objective", "loss"), [("condition", denoising_error), ("noise-contrast", noise_contrast)]
)
def test_a_step_with_the_condition_has_the_gradient_of_its_formula(
    save: Callable[..., Path], objective: str, loss: Loss, parts: Parts, tmp_path: Path
) -> None:
    folder = save(tmp_path / "teacher", seed=3)
    teacher = load_teacher(str(folder), device="cpu", precision="float32", vae=True)
    own = Parts(parts.base, parts.pairs, teacher)
    expected = condition_formula(own, folder, 0.7, seed=5, loss=loss)
    found = first_gradients(
        tmp_path / "out",
        own,
        objective=objective,
        condition_tokens=3,
        sds_weight=0.7,
        seed=5,
        trainable="all",
    )
    assert len(found) == len(list(parts.base.network.parameters())) + 2
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)


def test_a_text_map_has_the_gradient_of_its_formula(parts: Parts, tmp_path: Path) -> None:
    found = first_gradients(tmp_path, parts, objective="clip", trainable="text-map", seed=5)
    step, matrix = Step(parts, 5), torch.eye(32, requires_grad=True)
    text = step.network.encode_text(parts.base.tokenizer(step.texts)).detach()
    scale = step.network.logit_scale.detach().exp()
    ClipLoss()(step.image.detach(), F.normalize(text @ matrix, dim=-1), scale).backward()
    assert found.keys() == {"student.text_map.matrix"}
    torch.testing.assert_close(found["student.text_map.matrix"], matrix.grad, rtol=1e-3, atol=1e-7)


def test_factors_have_the_gradient_of_their_product_in_the_weight(parts: Parts, tmp_path: Path) -> None:
    found = first_gradients(tmp_path, parts, objective="clip", trainable="lora", lora_alpha=6, seed=5)
    step, drawn = (
        Step(parts, 5),
        attach(deepcopy(parts.base.network), targets="attention", rank=4, scale=1.5, seed=5),
    )
    ClipLoss()(step.image, step.text, step.network.logit_scale.exp()).backward()
    assert found.keys() == {f"student.{name}" for name in drawn}
    for name, factor in drawn.items():
        if name.endswith(".A"):  # B is 0 in the first step
            assert not found[f"student.{name}"].any()
            layer, b = name.removesuffix(".lora.A"), found[f"student.{name[:-1]}B"]
            weight = f"{layer}.weight" if layer.endswith("proj") else f"{layer}.in_proj_weight"
            of_weight = step.network.get_parameter(weight).grad.chunk(len(factor))
            expected = torch.stack([1.5 * one @ a.T for one, a in zip(of_weight, factor, strict=True)])
            torch.testing.assert_close(b, expected, rtol=1e-3, atol=1e-6)


def chooses_the_last(samples: Sequence[int], candidates: Sequence[tuple[str, ...]], width: int) -> Tensor:
    """Scores of a teacher that always takes a sample's last candidate."""
    return torch.tensor([[float(place != len(one) - 1) for place in range(width)] for one in candidates])


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_a_choice_among_the_negatives_alone_has_the_gradient_of_its_formula(
    labels: str, parts: Parts, tmp_path: Path
) -> None:
    """The caption has a part in L_CLIP, and none in the choice."""
    pairs = WithNegatives(parts.pairs, 3, 0)
    found = first_gradients(
        tmp_path, replace(parts, pairs=pairs, targets=chooses_the_last), objective="score", negatives="data",
        score_candidates="negatives", score_labels=labels, score_temperature=0.01, trainable="all", seed=5,
    )  # fmt: skip
    step = Step(parts, 5)
    scale = step.network.logit_scale.exp()
    choices = []
    for index, image in zip(step.indices, step.image, strict=True):
        (swapped,) = pairs.sample(index).negatives
        features = step.network.encode_text(parts.base.tokenizer(list(swapped)), normalize=True)
        choices.append(F.cross_entropy(scale * features @ image, torch.tensor(len(swapped) - 1)))
    (ClipLoss()(step.image, step.text, scale) + torch.stack(choices).mean()).backward()
    for name, value in found.items():
        expected = step.network.get_parameter(name.removeprefix("student.")).grad
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)
    (record,) = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert record["target_best"] == pytest.approx(1)
    assert "target_own" not in record


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "sds-clip", "sds_batch_size": 5},
        {"objective": "condition", "sds_batch_size": 5},
        {"objective": "noise-contrast", "sds_batch_size": 4},
        {"objective": "clip", "negatives": "swap", "negatives_loss": "contrast"},
        {"objective": "score", "negatives": "swap", "score_draws": 2},
    ],
)
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    options: dict[str, object], parts: Parts, tmp_path: Path
) -> None:
    whole = first_gradients(tmp_path / "whole", parts, **options)
    split = first_gradients(tmp_path / "split", parts, micro_batch_size=3, **options)
    assert whole.keys() == split.keys()
    for name, value in split.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-7)


def test_sds_batch_takes_its_samples_alone_to_the_teacher(parts: Parts, tmp_path: Path) -> None:
    """The gradient of the mapper's bias is that of the mean over the sub-batch, places 0 and 4 of 8."""
    assert parts.teacher is not None
    found = first_gradients(tmp_path, parts, sds_batch_size=2, gradient="sds")["mapper.linear.bias"]
    indices = [int(batch_indices(len(parts.pairs), 8, 0, 0)[place]) for place in (0, 4)]
    texts = [parts.pairs.sample(index).captions[0] for index in indices]
    pixels = torch.stack([parts.base.preprocess(parts.pairs.image(index)) for index in indices])
    noise, timesteps = draw_noise(0, 0, indices, (4, 8, 8)), draw_timesteps(0, 0, indices, 20, 979)
    with torch.no_grad():
        latents = Mapper(32, (4, 8, 8), seed=0)(parts.base.encode_image(pixels))
        abar = parts.teacher.levels.signal_power[timesteps].view(-1, 1, 1, 1)
        noisy = abar.sqrt() * latents + (1 - abar).sqrt() * noise
        error = parts.teacher.denoiser(noisy, timesteps, parts.teacher.encode_captions(texts)).sample - noise
    expected = (2 / error.numel() * abar.sqrt() * error).sum(dim=0).flatten()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_the_student_s_and_the_mapper_s_gradients_are_clipped_each_by_itself(
    parts: Parts, tmp_path: Path
) -> None:
    train(configure(steps=1, max_gradient_norm=1e-3), parts, tmp_path, PLACE)
    found = gradients(last_checkpoint(tmp_path))
    for part in ("student.", "mapper."):
        entries = [value.flatten() for name, value in found.items() if name.startswith(part)]
        assert torch.cat(entries).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_only_layer_norms_and_the_mapper_change_bit_for_bit(parts: Parts, tmp_path: Path) -> None:
    assert parts.teacher is not None
    before = frozen_state(parts.base, parts.teacher)
    train(configure(), parts, tmp_path, PLACE)
    norms = {
        f"{prefix}.{name}"
        for prefix, module in parts.base.network.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    assert changed(tmp_path).keys() == norms
    state, start = last_checkpoint(tmp_path), Mapper(32, (4, 8, 8), seed=0).state_dict()
    assert {name for name in state if "|" not in name} == {f"student.{name}" for name in norms} | {
        "mapper.linear.weight",
        "mapper.linear.bias",
    }
    assert not any(torch.equal(state[f"mapper.{name}"], value) for name, value in start.items())
    after = frozen_state(parts.base, parts.teacher)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("objective", ["sds-clip", "score"])
def test_the_teacher_never_gets_gradients(objective: str, parts: Parts, tmp_path: Path) -> None:
    assert parts.teacher is not None
    train(configure(objective=objective, negatives="swap", score_draws=2), parts, tmp_path, PLACE)
    for network in (parts.teacher.denoiser, parts.teacher.text_encoders["text_encoder"], parts.teacher.vae):
        assert not network.training
        assert all(value.grad is None and not value.requires_grad for value in network.parameters())


def test_a_frozen_logit_scale_above_clips_ceiling_stays_as_it_is(parts: Parts, tmp_path: Path) -> None:
    """OpenAI's lies just above ln 100 in float16, so that clamping it would add it to every delta."""
    network: Any = deepcopy(parts.base.network)
    network.logit_scale.data.fill_(4.61)
    identity = parts.base.identity.replacing({"logit_scale": network.logit_scale})
    scaled = replace(parts.base, network=network, identity=identity, version=identity.version)
    train(configure(objective="clip", steps=1), Parts(scaled, parts.pairs), tmp_path / "norms", PLACE)
    assert "logit_scale" not in changed(tmp_path / "norms")
    train(
        configure(objective="clip", steps=1, trainable="all"),
        Parts(scaled, parts.pairs),
        tmp_path / "all",
        PLACE,
    )
    assert changed(tmp_path / "all")["logit_scale"].exp().item() == pytest.approx(100, rel=1e-5)

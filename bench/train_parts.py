"""What the training benchmark uses, from seeds: a student, a teacher in Stable Diffusion's shape, data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import open_clip
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sds_clip.models.clip.attention import attend_batch_first
from sds_clip.models.clip.precision import DTYPES, choose_device, choose_precision
from sds_clip.models.clip.preprocess import Preprocess
from sds_clip.models.clip.student import trainable_parameters
from sds_clip.models.clip.text_map import TextMap
from sds_clip.models.data.batches import Loader
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.mapper import Mapper
from sds_clip.models.noise import Levels
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.teacher.unet import StableDiffusion
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.distillation.condition import ConditionLoss
from sds_clip.models.training.distillation.noise_contrast import NoiseContrastLoss
from sds_clip.models.training.distillation.sds import SdsLoss
from sds_clip.models.training.distillation.teacher_loss import TeacherLoss
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.objective import Objective
from sds_clip.models.training.optimizer import make_optimizer
from sds_clip.models.training.randomness import draw_noise
from sds_clip.models.training.score_targets import TeacherScores
from sds_clip.models.training.trainer import Trainer

FULL, SDS, RECOMPUTED = "full", "sds", "full, activation checkpointing"
CONDITION, NOISE, SCORE = "condition", "noise-contrast", "score"
CLIP, TEXT_MAP = "clip with swaps", "text-map"
# What a variant's run differs in from another's.
VARIANTS: dict[str, dict[str, Any]] = {
    FULL: {"gradient": "full"},
    SDS: {"gradient": "sds"},
    RECOMPUTED: {"gradient": "full"},
    CONDITION: {"objective": "condition"},
    NOISE: {"objective": "noise-contrast"},
    SCORE: {"objective": "score", "negatives": "swap"},
    CLIP: {"objective": "clip", "negatives": "swap"},
    TEXT_MAP: {"objective": "clip", "negatives": "swap", "trainable": "text-map"},
}
SWAPS = [variant for variant, options in VARIANTS.items() if "negatives" in options]
MEASURED = [variant for variant in VARIANTS if variant != RECOMPUTED]
"""The variants that are compared with their bare parts."""
SEED = 0
CONTEXT_LENGTH = 77
# `sd15` is Stable Diffusion 1.5; `small` halves its widths and its latents' sides.
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
    "small": {"sample_size": 32, "block_out_channels": (160, 320, 640, 640), "cross_attention_dim": 384},
    "tiny": {"sample_size": 16, "block_out_channels": (32, 32, 32, 32), "cross_attention_dim": 32},
}
TEXT_LAYERS = {"sd15": 12, "small": 12, "tiny": 2}
TINY_STUDENT: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Shapes:
    """What is built, on which device, in which format."""

    student: str
    unet: str
    device: str
    precision: str
    batch_size: int
    sds_batch_size: int
    score_draws: int

    @property
    def place(self) -> torch.device:
        return choose_device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of student and teacher, with `auto` resolved."""
        return DTYPES[choose_precision(self.precision, self.place)]

    def config(self, variant: str, steps: int = 1000) -> FinetuneConfig:
        """The options of a run, all but the sizes and the variant's at their defaults."""
        return FinetuneConfig.model_validate(
            {
                "data": "captions.json", "teacher": "random", "steps": steps, "seed": SEED,
                "teacher_precision": choose_precision(self.precision, self.place),
                "batch_size": self.batch_size, "sds_batch_size": self.sds_batch_size,
                "score_draws": self.score_draws, **VARIANTS[variant],
            }
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Model:
    """Everything that a step uses, with random weights."""

    shapes: Shapes
    network: Any
    tokenizer: Any
    preprocess: Preprocess
    teacher: Teacher
    mapper: Mapper
    """To latents."""
    tokens: Mapper
    """To tokens of a caption."""
    text_map: TextMap
    student: dict[str, nn.Parameter]

    @property
    def trained(self) -> list[nn.Parameter]:
        parts = (self.mapper, self.tokens, self.text_map)
        return [*self.student.values(), *(value for part in parts for value in part.parameters())]

    def trainer(self, variant: str, *, steps: int = 1000) -> Trainer:
        """A trainer for these weights as in a run."""
        shapes, teacher = self.shapes, self.teacher
        config = shapes.config(variant, steps)
        latents = KnownLatents(teacher)
        by_teacher: TeacherLoss | None = None
        if config.objective == "sds-clip":
            by_teacher = SdsLoss(config, steps, teacher, self.mapper)
        elif config.objective == "condition":
            by_teacher = ConditionLoss(config, steps, teacher, self.tokens, latents)
        elif config.objective == "noise-contrast":
            by_teacher = NoiseContrastLoss(config, steps, teacher, self.tokens, latents)
        targets = TeacherScores(config, teacher, latents) if config.objective == "score" else None
        objective = Objective(config, steps, by_teacher, targets)
        mapped = config.trainable == "text-map"
        student = dict(self.text_map.named_parameters(prefix="text_map")) if mapped else self.student
        return Trainer(
            self.network,
            self.tokenizer,
            objective,
            student,
            make_optimizer(self.network, student, objective.mapper, config),
            device=shapes.place,
            dtype=shapes.dtype,
            text_map=self.text_map if mapped else None,
            teacher=teacher,
        )


class KnownLatents(Latents):
    """Latents from a seed, in place of those of the images: they cost nothing, as encodings that are known."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._known = teacher, {}

    def encode(self, sample: int) -> Tensor:
        return draw_noise(SEED, 0, [sample], self._teacher.latent_shape)[0].to(self._teacher.device)


def build(shapes: Shapes) -> Model:
    torch.manual_seed(SEED)
    config = student_config(shapes.student)
    network: Any = attend_batch_first(open_clip.CLIP(**config)).to(shapes.place)
    teacher = build_teacher(shapes)
    size = network.visual.image_size
    condition_tokens = FinetuneConfig.model_fields["condition_tokens"].default
    return Model(
        shapes=shapes,
        network=network,
        tokenizer=SimpleTokenizer(),
        preprocess=Preprocess(image_transform_v2(PreprocessCfg(size=size), is_train=False)),
        teacher=teacher,
        mapper=Mapper(config["embed_dim"], teacher.latent_shape, seed=SEED).to(shapes.place),
        tokens=Mapper(config["embed_dim"], (condition_tokens, teacher.caption_width), seed=SEED).to(
            shapes.place
        ),
        text_map=TextMap(config["embed_dim"]).to(shapes.place),
        student=trainable_parameters(network, "layernorm"),
    )


def student_config(name: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture, or the tiny one."""
    config: dict[str, Any] = TINY_STUDENT if name == "tiny" else open_clip.get_model_config(name)
    return config


def build_teacher(shapes: Shapes) -> Teacher:
    """A random teacher without a VAE, its parts in the formats of `load_teacher`."""
    unet = new_unet(shapes.unet, shapes.place, shapes.dtype)
    text_encoder = CLIPTextModel(text_config(shapes.unet)).to(shapes.place)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    side = unet.config.sample_size
    return Teacher(
        reference=f"random {shapes.unet}",
        version=f"{shapes.unet} {SEED}",
        family=StableDiffusion(),
        denoiser=unet,
        text_encoders={"text_encoder": text_encoder},
        tokenizers={"text_encoder": clip_tokenizer()},
        vae=None,
        prediction_type="epsilon",
        levels=Levels.of_abar(scheduler.alphas_cumprod.float().to(shapes.place)),
        latent_shape=(unet.config.in_channels, side, side),
        resolution_px=8 * side,
        device=shapes.place,
        dtype=shapes.dtype,
    )


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own vocabulary and merges in transformers' tokenizer."""
    known, start, end = SimpleTokenizer(), "<|startoftext|>", "<|endoftext|>"
    vocabulary = {**known.encoder, start: known.sot_token_id, end: known.eot_token_id}
    del vocabulary["<start_of_text>"], vocabulary["<end_of_text>"]
    return CLIPTokenizer(vocabulary, [*known.bpe_ranks], model_max_length=CONTEXT_LENGTH, pad_token=end)


def new_unet(name: str, device: torch.device | str, dtype: torch.dtype) -> Any:
    """A random, frozen U-Net of Stable Diffusion 1.x's layout, created on its device."""
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            unet: Any = UNet2DConditionModel(attention_head_dim=8, **UNETS[name])
    finally:
        torch.set_default_dtype(default)
    return unet.eval().requires_grad_(False)


def new_loader(model: Model, pairs: PairSet, steps: int) -> Loader:
    return Loader(
        pairs, model.preprocess, batch_size=model.shapes.batch_size, seed=SEED, first_step=0, last_step=steps
    )


def describe(model: Model) -> str:
    """The sizes of what was built, in one sentence."""
    shapes, parts = (
        model.shapes,
        (model.network, model.teacher.denoiser, *model.teacher.text_encoders.values()),
    )
    student, unet, text = (sum(value.numel() for value in part.parameters()) / 1e6 for part in parts)
    trained = sum(value.numel() for value in model.student.values())
    channels, height, width = model.teacher.latent_shape
    return (
        f"Student {shapes.student} ({student:.1f} M parameters, {trained:,} trained), U-Net {shapes.unet} "
        f"({unet:.1f} M, latents {channels}x{height}x{width}, mapper {prod(model.teacher.latent_shape):,} wide), "
        f"its text encoder {text:.1f} M; random weights. {str(shapes.dtype).removeprefix('torch.')} on "
        f"{shapes.place}, batch {shapes.batch_size}, of which the teacher sees {shapes.sds_batch_size}; score compares "
        f"captions on {shapes.score_draws} draws."
    )


def text_config(name: str) -> CLIPTextConfig:
    """Configuration of the text encoder whose hidden states the U-Net attends to."""
    width = UNETS[name]["cross_attention_dim"]
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=TEXT_LAYERS[name],
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=CONTEXT_LENGTH,
        vocab_size=49408,
        hidden_act="quick_gelu",
    )

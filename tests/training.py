"""Small data and short runs for the tests of fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig, parse_config
from sds_clip.models.training.processes import Rank
from sds_clip.models.training.watcher import Watcher

PLACE = Rank(torch.device("cpu"), 0, 1)
_COLOURS, _SHAPES = ("red", "blue", "green"), ("circle", "square", "star")
_THINGS = [f"{colour} {shape}" for colour, shape in product(_COLOURS, _SHAPES)]


class Stopper(Watcher):
    """Stops a run where a function, which is asked after every step, says so."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def should_stop(self) -> bool:
        return self._should_stop()


EVERY_TERM: dict[str, object] = {
    "negatives": "swap",
    "negatives_count": 2,
    "negatives_focal_gamma": 2.0,
    "negatives_label_smoothing": 0.02,
    "intra_modal_weight": 0.2,
    "rank_weight": 0.4,
    "paraphrase_weight": 0.5,
    "feature_distillation_weight": 1.0,
    "similarity_distillation_weight": 1.0,
}
"""Every term that needs no teacher, with a weight; the data are `TwoCaptions`."""


def captions(count: int) -> list[str]:
    """Captions of which two words or phrases can be swapped."""
    pairs = [(one, other) for one, other in product(_THINGS, _THINGS) if one.split()[0] != other.split()[0]]
    return [f"a {one} left of a {other}" for one, other in islice(cycle(pairs[::5]), count)]


def save_coco(folder: Path, count: int = 24, *, seed: int = 0) -> Path:
    """Pictures of coarse noise with one caption each: `captions.json`, and the pictures beside it."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize((40, 40), Image.Resampling.NEAREST)
        picture.save(folder / f"{number}.png")
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(count)],
        "annotations": [
            {"id": number, "image_id": number, "caption": caption}
            for number, caption in enumerate(captions(count))
        ],
    }
    file = folder / "captions.json"
    file.write_text(json.dumps(content))
    return file


def configure(**options: object) -> FinetuneConfig:
    """A short run in float32 with a teacher; what it reads is given to it."""
    defaults: dict[str, object] = {
        "data": "pairs",
        "teacher": "teacher",
        "steps": 4,
        "batch_size": 8,
        "warmup_steps": 1,
        "lr": 1e-3,
        "mapper_start": "random",
        "t_min": 0.02,
        "t_max": 0.98,
        "precision": "float32",
        "workers": 1,
    }
    return parse_config(defaults | options)


def changed(out: Path) -> dict[str, Tensor]:
    """What a finished run has changed of its base."""
    return dict(load_file(out / "delta" / "delta.safetensors"))


def last_checkpoint(out: Path) -> dict[str, Tensor]:
    """The state that a run has saved last."""
    newest = max((out / "checkpoints").glob("step-*"))
    return dict(load_file(newest / "state.safetensors"))


def state_after(step: int, out: Path) -> dict[str, Tensor]:
    """The state that a run has saved after a step."""
    return dict(load_file(out / "checkpoints" / f"step-{step:08d}" / "state.safetensors"))


def gradients(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of a run's first step, from the state after it: Adam's first moment is a tenth of them."""
    return {
        name.removesuffix("|exp_avg"): 10 * value
        for name, value in state.items()
        if name.endswith("|exp_avg")
    }


def frozen_state(base: Clip, teacher: Teacher) -> dict[str, Tensor]:
    """A copy of every weight that a run may not touch."""
    parts = {
        "base": base.network,
        "unet": teacher.denoiser,
        "text": teacher.text_encoders["text_encoder"],
        "vae": teacher.vae,
    }
    return {
        f"{part}.{name}": value.clone()
        for part, network in parts.items()
        if network is not None
        for name, value in network.state_dict().items()
    }


class TwoCaptions(PairSet):
    """Pairs of which two in three have a second caption."""

    def __init__(self, pairs: PairSet) -> None:
        self._pairs = pairs

    @property
    def content_hash(self) -> str:
        return self._pairs.content_hash

    def __len__(self) -> int:
        return len(self._pairs)

    def sample(self, index: int) -> Sample:
        sample = self._pairs.sample(index)
        if index % 3 == 2:
            return sample
        second = f"there is {sample.captions[0]}"
        return replace(sample, captions=(*sample.captions, second), negatives=(*sample.negatives, ()))

    def image(self, index: int) -> Image.Image:
        return self._pairs.image(index)

"""The diffusion score as a benchmark's scorer; imports what the extra `train` brings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.cores import usable_cores
from models.diffusion_score import DiffusionScorer, draws
from models.evaluation.checked import Images, Problems, Say
from models.evaluation.items import ImageProblem, Item, open_region
from models.evaluation.results import ImageRegion
from models.teacher.teacher import Teacher

_AHEAD = 64


class TeacherScorer:
    """What a caption explains of an image, d(x, no caption) - d(x, c), all on the same `count` draws of a seed.

    Scores are kept in `folder` item by item, so that a run that was killed goes on where it was.
    """

    name = "diffusion"

    def __init__(
        self, teacher: Teacher, folder: Path, *, count: int = 32, seed: int = 0, batch_size: int = 64
    ) -> None:
        self._teacher = teacher
        self._settings = {"draws": count, "seed": seed}
        drawn = draws(count, teacher.latent_shape, teacher.timesteps, seed=seed)
        self._scorer = DiffusionScorer(teacher, drawn, batch_size=batch_size)
        self._key_of_image: dict[ImageRegion, bytes] = {}
        self._kept = _KeptScores(folder / f"diffusion-{self._identity()[:16]}.jsonl")
        self.scored = 0
        """Items that went through the U-Net, and were not kept before."""

    def describe(self) -> dict[str, Any]:
        """The teacher, by name and version, and what was drawn."""
        return {
            "model": self._teacher.reference,
            "model_version": self._teacher.version,
            "precision": str(self._teacher.dtype).removeprefix("torch."),
            "device": str(self._teacher.device),
            **self._settings,
        }

    def prepare(
        self, items: Sequence[Item], images: Images, problems: Problems, say: Say | None = None
    ) -> None:
        """Decode every image once, before anything is scored: a score takes far longer."""
        self._key_of_image |= images.keys
        regions = list(dict.fromkeys(region for item in items for region in item.images))
        bad: dict[ImageRegion, str] = {}
        with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
            for start in range(0, len(regions), _AHEAD):
                batch = regions[start : start + _AHEAD]
                for region, reason in zip(batch, pool.map(_reason, batch), strict=True):
                    if reason is not None:
                        bad[region] = reason
        for item in items:
            for region in item.images:
                if region in bad:
                    problems.add(item.id, bad[region])

    def scores(self, items: Sequence[Item], say: Say | None = None) -> Iterator[Float[Tensor, "c i"]]:
        """Scores `[caption, image]` in float64, which compare captions and images alike."""
        for done, item in enumerate(items, start=1):
            key = self._key(item)
            if key not in self._kept:
                pictures = [open_region(region) for region in item.images]
                self._kept.add(key, self._scorer.score(pictures, item.captions).corrected)
                self.scored += 1
            yield self._kept[key]
            if say is not None:
                say("items", done, len(items))

    def _key(self, item: Item) -> str:
        images = [self._key_of_image[region].hex() for region in item.images]
        return hashlib.sha256(json.dumps([images, item.captions]).encode()).hexdigest()

    def _identity(self) -> str:
        """Hash of all that a score depends on but the item; a teacher's version does not cover its VAE."""
        total = hashlib.sha256(json.dumps([self.describe(), self._teacher.guidance]).encode())
        if self._teacher.vae is not None:
            for name, value in self._teacher.vae.state_dict().items():
                total.update(name.encode())
                total.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()


class _KeptScores:
    """One line of JSON an item. A last line that a kill cut off is dropped."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, list[list[float]]] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        for line in lines[:-1]:
            record = json.loads(line)
            self._found[record["key"]] = record["scores"]
        self._path = path
        if lines[-1]:
            path.write_text("\n".join([*lines[:-1], ""]), encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Float[Tensor, "c i"]:
        return torch.tensor(self._found[key], dtype=torch.float64)

    def add(self, key: str, scores: Float[Tensor, "c i"]) -> None:
        self._found[key] = scores.tolist()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "scores": self._found[key]}) + "\n")


def _reason(region: ImageRegion) -> str | None:
    try:
        open_region(region)
    except ImageProblem as error:
        return str(error)
    return None

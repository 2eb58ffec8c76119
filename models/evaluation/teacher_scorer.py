"""The diffusion score as a benchmark's scorer. It imports packages of the extra `train`."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.choices import SCORE_ERROR, ErrorOf
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.computed_by import computed_by
from sds_clip.models.evaluation.image_check import Images, Problems, Say, quiet
from sds_clip.models.evaluation.items import ImageProblem, Item, open_region
from sds_clip.models.evaluation.kept import KeptErrors, open_cache
from sds_clip.models.evaluation.results import Results
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.machine import usable_cores
from sds_clip.models.teacher.diffusion_score import draws, image_errors
from sds_clip.models.teacher.teacher import UNCONDITIONAL, Teacher

_AHEAD = 64  # images between two calls of `say`
_CAPTIONS_AT_ONCE = 64


class TeacherScorer:
    """How much of an image a caption explains: d(x, no caption) - d(x, c), all on the same draws.

    There are `count` draws of a seed. When an image is needed for the first time, its d is computed for all its
    captions, including those of other items. It is kept in `folder` by the image's content.
    """

    name = "diffusion"

    def __init__(
        self,
        teacher: Teacher,
        folder: Path,
        *,
        count: int = 32,
        seed: int = 0,
        error_of: ErrorOf = SCORE_ERROR,
        batch_size: int = 64,
        max_bytes: int | None = None,
    ) -> None:
        """`max_bytes` bounds what the folder keeps of all runs together."""
        self._teacher = teacher
        self._settings = {
            "draws": count,
            "seed": seed,
            "score_error": error_of,
            "batch_size": batch_size,
            "threads": torch.get_num_threads(),
        }
        drawn = draws(count, teacher.latent_shape, teacher.timesteps, seed=seed)
        self._errors = partial(image_errors, teacher, drawn=drawn, batch_size=batch_size, error_of=error_of)
        self._key_of_image: dict[ImageRef, str] = {}
        # All that an error depends on, but the item.
        identity = hashlib.sha256(json.dumps([self.describe(), teacher.guidance]).encode()).hexdigest()
        self._kept = KeptErrors(open_cache(folder, max_bytes), f"{identity}-{computed_by()}")
        self._raw = False

    def raw(self) -> "TeacherScorer":
        """Return a scorer by -d(x, c), which can compare captions of one image but not images."""
        scorer = copy(self)
        scorer._raw = True
        return scorer

    def describe(self) -> dict[str, Any]:
        return {
            "model": self._teacher.reference,
            "model_version": self._teacher.version,
            "vae_version": self._teacher.vae_version,
            "precision": str(self._teacher.dtype).removeprefix("torch."),
            "device": str(self._teacher.device),
            **self._settings,
        }

    def prepare(self, items: Sequence[Item], images: Images, problems: Problems, say: Say = quiet) -> None:
        """Decode every image that will be scored, to find bad ones first: scoring takes far longer."""
        self._key_of_image |= {region: key.hex() for region, key in images.keys.items()}
        missing = self._missing(items)
        region_of = {self._key_of_image[region]: region for item in items for region in item.images}
        keys = list(missing)
        bad: dict[str, str] = {}
        with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
            for start in range(0, len(keys), _AHEAD):
                batch = keys[start : start + _AHEAD]
                reasons = pool.map(_reason, [region_of[key] for key in batch])
                bad |= {key: reason for key, reason in zip(batch, reasons, strict=True) if reason is not None}
                say("images", start + len(batch), len(keys))
        for item in items:
            for key in self._keys(item):
                if key in bad:
                    problems.add(item.id, bad[key])

    def scores(self, items: Sequence[Item], say: Say = quiet) -> Iterator[Float[Tensor, "c i"]]:
        """Yield scores `[caption, image]` in float64, which can compare both captions and images."""
        missing = self._missing(items)
        for done, item in enumerate(items):
            together: dict[tuple[str, ...], list[ImageRef]] = {}
            for region in item.images:
                captions = missing.pop(self._key_of_image[region], None)
                if captions is not None:
                    together.setdefault(captions, []).append(region)
            for captions, regions in together.items():
                self._score(regions, captions, partial(say, "items", done, len(items)))
            d = self._kept.take(self._keys(item), [*item.captions, UNCONDITIONAL])
            yield -d[:-1] if self._raw else d[-1] - d[:-1]
            say("items", done + 1, len(items))

    def _score(self, regions: Sequence[ImageRef], captions: Sequence[str], tick: Callable[[], None]) -> None:
        keys = [self._key_of_image[region] for region in regions]
        pictures = [open_region(region) for region in regions]
        for start in range(0, len(captions), _CAPTIONS_AT_ONCE):
            some = captions[start : start + _CAPTIONS_AT_ONCE]
            self._kept.add(keys, some, self._errors(pictures, some, tick=tick))

    def _keys(self, item: Item) -> list[str]:
        return [self._key_of_image[region] for region in item.images]

    def _missing(self, items: Sequence[Item]) -> dict[str, tuple[str, ...]]:
        """Return each image's captions whose d is not kept, including "", for images that have any."""
        wanted: dict[str, dict[str, None]] = {}
        for item in items:
            for key in self._keys(item):
                wanted.setdefault(key, {}).update(dict.fromkeys([*item.captions, UNCONDITIONAL]))
        self._kept.fetch((key, caption) for key, captions in wanted.items() for caption in captions)
        missing = {
            key: tuple(caption for caption in captions if (key, caption) not in self._kept)
            for key, captions in wanted.items()
        }
        return {key: captions for key, captions in missing.items() if captions}


def run_teacher(
    benchmark: Benchmark, scorer: TeacherScorer, *, max_bad_share: float = 0.0, say: Say = quiet
) -> Results:
    """Run a benchmark. If items have several images, add figures by raw -d in `provenance["raw_score"]`.

    With one image per item both scores give the same figures.
    """
    results = run_benchmark(benchmark, scorer, max_bad_share=max_bad_share, say=say)
    if all(len(item.images) == 1 for item in benchmark.items):
        return results
    used = {item.id for item in results.items}
    raw = benchmark.measure([item for item in benchmark.items if item.id in used], scorer.raw(), quiet)
    figures = {name: metric.value for name, metric in raw.metrics.items()}
    # GroupMatch and its d' are the same for both scores: an image's own level, d(x, no caption), cancels.
    return replace(results, provenance={**results.provenance, "raw_score": figures})


def _reason(region: ImageRef) -> str | None:
    try:
        open_region(region)
    except ImageProblem as error:
        return str(error)
    return None

"""Gate 0: is a student one that distillation can teach? `python -m sds_clip.demo.gate MODEL...`

Three things must hold on validation combinations:

(a) its image embedding and its text embedding each tell places and bindings to a linear probe, at 90 % or more;
(b) its scores do not use them: GroupMatch is under 60 % on objects and relation, with a retrieval above 90 %;
(c) it can learn to: exact captions with their swaps as hard negatives bring GroupMatch to 85 % on every kind.

For (c) all of its parameters are fine-tuned. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from sds_clip.demo.captions import caption, draw_wording
from sds_clip.demo.measure import StudentScores, measure
from sds_clip.demo.options import count, parser_of, run
from sds_clip.demo.probe import POOLED, PROBES, TEXT, accuracies, probe_model
from sds_clip.demo.render import render
from sds_clip.demo.sets import scenes
from sds_clip.demo.winoground_sets import KINDS, counterpart
from sds_clip.demo.world import Scene, Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.training.config import FinetuneConfig, parse_config
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.processes import find_rank
from sds_clip.models.training.run import train

WORK_DIR = Path(tempfile.gettempdir()) / "sds-clip-demo-gate"
ITEMS_PER_KIND = 2000
PAIRS, PAIRS_SEED = 24_576, 2002
STEPS, BATCH_SIZE, LEARNING_RATE = 2000, 128, 5e-4
HELD, UNUSED, RETRIEVED, LEARNT = 0.9, 0.6, 0.9, 0.85


class ExactPairs(PairSet):
    """Training scenes whose captions name both colours and the relation. Their negatives are the swaps of each kind."""

    def __init__(self, size: int) -> None:
        self._scenes = scenes(Split.TRAIN, PAIRS_SEED, 0, size)
        self._samples = [exact_sample(scene, index) for index, scene in enumerate(self._scenes)]

    @property
    def content_hash(self) -> str:
        """A hash of the scenes, which determine the images and the captions."""
        return hashlib.sha256(repr(self._scenes).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._scenes)

    def sample(self, index: int) -> Sample:
        """The scene's caption, and a caption of each other scene that has the same words."""
        return self._samples[index]

    def image(self, index: int) -> PIL.Image.Image:
        return PIL.Image.fromarray(render(self._scenes[index]))


def exact_sample(scene: Scene, index: int) -> Sample:
    wording = draw_wording(len(scene.things), np.random.default_rng((PAIRS_SEED, index)), complete=True)
    said = caption(scene, wording)
    swaps: list[str] = []
    if len(scene.things) == 2:
        swaps = [caption(*counterpart(kind, scene, wording)) for kind in KINDS]
    # Objects of one colour have no swap of attributes, and those of one shape only one swap of places.
    return Sample(f"pair {index}", (said,), (tuple(dict.fromkeys(swap for swap in swaps if swap != said)),))


@dataclass(frozen=True)
class Gate:
    """What was measured on validation combinations."""

    parameters: int
    image: list[float]
    """The accuracies of PROBES from the pooled image embedding."""
    text: list[float]
    scores: StudentScores
    ceiling: StudentScores
    """After fine-tuning on exact captions."""

    @property
    def holds(self) -> dict[str, bool]:
        """Which of the three hold."""
        matched, learnt = (each.by_kind(each.group_match) for each in (self.scores, self.ceiling))
        unused = max(matched["objects"], matched["relation"]) < UNUSED
        return {
            "a": min(*self.image, *self.text) >= HELD,
            "b": unused and self.scores.retrieval > RETRIEVED,
            "c": min(learnt.values()) >= LEARNT,
        }


def gate(clip: Clip, work_dir: Path, config: FinetuneConfig, pairs: PairSet) -> Gate:
    """Measure a student, fine-tune it in a folder of its own under `work_dir`, and measure it again."""
    probed = probe_model(clip, sources=(POOLED, TEXT))
    folder = work_dir / f"{clip.version[:12]}-{config.steps}"
    if not (folder / "delta").exists():
        train(config, Parts(clip, pairs), folder, find_rank("cpu"), resume=True)
    tuned = load_clip(str(folder / "delta"), device="cpu", precision="float32")
    return Gate(
        parameters=clip.parameters,
        image=accuracies(probed[POOLED]),
        text=accuracies(probed[TEXT]),
        scores=measure(clip, Split.VALIDATION, ITEMS_PER_KIND),
        ceiling=measure(tuned, Split.VALIDATION, ITEMS_PER_KIND),
    )


def ceiling_config(reference: str, steps: int) -> FinetuneConfig:
    """Contrastive fine-tuning of all parameters, with the data's own hard negatives."""
    return parse_config(
        {
            "base": reference,
            "data": "exact",
            "objective": "clip",
            "trainable": "all",
            "negatives": "data",
            "steps": steps,
            "batch_size": BATCH_SIZE,
            "lr": LEARNING_RATE,
            "save_every": 100,
            "keep_checkpoints": 1,
            "device": "cpu",
        }
    )


HEADER = (
    "| model | parameters, million | (a) image: " + ", ".join(PROBES) + ", % | (a) text, % | (b) GroupMatch: "
    + ", ".join(KINDS) + ", % | (b) recall@1, % | (c) GroupMatch after fine-tuning, % | holds |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)  # fmt: skip


def row(name: str, found: Gate) -> str:
    """A line of the table."""
    cells = [
        name,
        f"{found.parameters / 1e6:.1f}",
        _percent(found.image),
        _percent(found.text),
        _percent(found.scores.by_kind(found.scores.group_match).values()),
        _percent([found.scores.retrieval]),
        _percent(found.ceiling.by_kind(found.ceiling.group_match).values()),
        ", ".join(name for name, holds in found.holds.items() if holds) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="References of the students.")
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="Folder for the fine-tuned students.")
    parser.add_argument("--steps", type=count, default=STEPS, help="Number of steps of fine-tuning.")
    options = parser.parse_args()
    pairs = ExactPairs(PAIRS)
    print(HEADER)
    for reference in options.models:
        clip = load_clip(reference, device="cpu", precision="float32")
        found = gate(clip, options.work_dir, ceiling_config(reference, options.steps), pairs)
        print(row(reference, found), flush=True)


def _percent(shares: Iterable[float]) -> str:
    return " ".join(f"{100 * share:.1f}" for share in shares)


if __name__ == "__main__":
    run(main)

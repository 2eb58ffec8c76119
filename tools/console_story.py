"""What happens in the system whose console tools/screenshots.py takes pictures of.

The demo teacher is distilled into the demo model, and the control is trained beside it, as in `make demo`, but shorter.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sds_clip import Client
from sds_clip.client.schemas import Hyperparameters
from sds_clip.demo.folders import write_pairs, write_retrieval
from sds_clip.demo.live import DATA
from sds_clip.demo.sets import pairs, retrieval_set
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.world import Split
from sds_clip.models.choices import Objective
from tests.sds_clip.embedded import Running, until

PAIRS = 1024
SHORT: Hyperparameters = {
    "trainable": "all",
    "steps": 60,
    "lr": 5e-4,
    "batch_size": 64,
    "sds_batch_size": 16,
    "warmup_steps": 10,
    "negatives": "swap",
    "score_draws": 4,
    "log_every": 1,
}
ITEM = next(
    item
    for item in map(json.loads, (DATA / "validation" / "examples.jsonl").read_text().splitlines())
    if item["tag"] == "relation"
)
PICTURE = DATA / "validation" / "images" / f"{ITEM['image_0']}.png"
CAPTIONS = [ITEM["caption_0"], ITEM["caption_1"]]
REASON = "Who is where matters more to us than two points of retrieval."


@contextmanager
def story(folder: Path) -> Iterator["Story"]:
    """Run a system in a folder, while the context lasts."""
    system = Running(folder)
    try:
        with Client(system.url) as client:
            yield Story(folder, system.url, client)
    finally:
        system.close()


class Story:
    """What happens, in the order of the methods."""

    def __init__(self, folder: Path, url: str, client: Client) -> None:
        self.url = url
        self._folder = folder
        self._client = client

    def train_and_measure(self) -> None:
        """Train the candidate and its control, and measure the candidate and the base on the same items."""
        held_out = retrieval_set(Split.VALIDATION)
        write_pairs(self._folder / "train", pairs(Split.TRAIN, DISTILLATION_SEED, 0, PAIRS))
        write_pairs(self._folder / "validation", held_out)
        write_retrieval(self._folder / "retrieval", held_out)
        train = self._upload(self._folder / "train", "pairs", "train-pairs")
        validation = self._upload(self._folder / "validation", "pairs", "validation-pairs")
        winoground = self._upload(DATA / "validation", "winoground", "winoground")
        retrieval = self._upload(self._folder / "retrieval", "retrieval", "retrieval")
        self._evaluate("winoground", winoground, "winoground-base", "default")
        arms: dict[str, tuple[Objective, str | None]] = {
            "distilled-control": ("clip", None),
            "distilled": ("score", "demo"),
        }
        for name, (objective, teacher) in arms.items():
            job = self._client.finetune(
                train,
                name=name,
                objective=objective,
                teacher=teacher,
                hyperparameters=SHORT,
                validation_data=validation,
                evaluate=[{"benchmark": "winoground", "data": winoground}],
                suffix=name,
            ).wait()
            assert job.version is not None, job.error
            self._version = job.version
        self._client.promote(self._version, alias="candidate", reason="To be tried beside the base.")
        self._evaluate("retrieval", retrieval, "retrieval-candidate", "candidate", "default")
        self._evaluate("winoground", winoground, "winoground-candidate", "candidate", "default")

    def promote(self) -> None:
        self._client.promote(self._version, reason=REASON, wait_s=60)

    def train_longer(self) -> None:
        """Begin a job that is still running when the last picture is taken."""
        job = self._client.finetune(
            "train-pairs", name="longer", objective="clip", hyperparameters={**SHORT, "steps": 5000}
        )
        until(lambda: (self._client.job(job.id).info["progress"]["step"] or 0) > 0)

    def _upload(self, folder: Path, format: str, name: str) -> str:
        dataset: str = self._client.upload_dataset(folder, format=format, name=name)["id"]
        until(lambda: self._client.dataset(dataset)["status"] == "ready")
        return dataset

    def _evaluate(
        self, benchmark: str, data: str, name: str, model: str, baseline: str | None = None
    ) -> None:
        job = self._client.evaluate(benchmark, data, name=name, model=model, baseline=baseline).wait()
        assert job.status == "succeeded", job.error

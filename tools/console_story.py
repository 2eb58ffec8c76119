"""What happens in the system whose console tools/screenshots.py takes pictures of.

The demo teacher is distilled into the demo model, and the control is trained beside it, as in `make demo`, but shorter.
"""

import json
from pathlib import Path

from sds_clip import Client
from sds_clip.client.schemas import Hyperparameters
from sds_clip.demo.folders import write_pairs, write_retrieval
from sds_clip.demo.live import DATA
from sds_clip.demo.sets import pairs, retrieval_set
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.world import Split
from sds_clip.models.choices import Objective
from tests.sds_clip.embedded import until

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


def train_and_measure(client: Client, folder: Path) -> str:
    """Train the candidate and its control, and measure the candidate and the base on the same items.

    Returns the candidate's version.
    """
    held_out = retrieval_set(Split.VALIDATION)
    write_pairs(folder / "train", pairs(Split.TRAIN, DISTILLATION_SEED, 0, PAIRS))
    write_pairs(folder / "validation", held_out)
    write_retrieval(folder / "retrieval", held_out)
    train = _upload(client, folder / "train", "pairs", "train-pairs")
    validation = _upload(client, folder / "validation", "pairs", "validation-pairs")
    winoground = _upload(client, DATA / "validation", "winoground", "winoground")
    retrieval = _upload(client, folder / "retrieval", "retrieval", "retrieval")
    _evaluate(client, "winoground", winoground, "winoground-base", "default")
    arms: dict[str, tuple[Objective, str | None]] = {
        "distilled-control": ("clip", None),
        "distilled": ("score", "demo"),
    }
    for name, (objective, teacher) in arms.items():
        job = client.finetune(
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
        version = job.version
    client.promote(version, alias="candidate", reason="To be tried beside the base.")
    _evaluate(client, "retrieval", retrieval, "retrieval-candidate", "candidate", "default")
    _evaluate(client, "winoground", winoground, "winoground-candidate", "candidate", "default")
    return version


def train_longer(client: Client) -> None:
    """Begin a job that is still running when the last picture is taken."""
    hyperparameters: Hyperparameters = {**SHORT, "steps": 5000}
    job = client.finetune("train-pairs", name="longer", objective="clip", hyperparameters=hyperparameters)
    until(lambda: (job.refresh().info["progress"]["step"] or 0) > 0)


def _upload(client: Client, folder: Path, format: str, name: str) -> str:
    dataset: str = client.upload_dataset(folder, format=format, name=name)["id"]
    until(lambda: client.dataset(dataset)["status"] == "ready")
    return dataset


def _evaluate(
    client: Client, benchmark: str, data: str, name: str, model: str, baseline: str | None = None
) -> None:
    job = client.evaluate(benchmark, data, name=name, model=model, baseline=baseline).wait()
    assert job.status == "succeeded", job.error

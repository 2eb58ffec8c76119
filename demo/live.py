"""Distil, compare and swap on a running system under load: `make demo`, beside `make run`.

Uploads pairs of the demo world and its validation sets, and submits a job that distils the demo teacher's choice among
each caption and its swaps into the demo CLIP, with `promote: if_better`. Requests keep coming while the job runs. The
base does not tell who is where. The new version does: its GroupMatch is significantly higher, so the gate promotes it.
(The control, with objective `clip` and the same swaps, learns it too. So this shows the system, and no gain by the
teacher.)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.folders import write_pairs
from demo.sets import pairs, retrieval_set
from demo.training_set import DISTILLATION_SEED
from demo.world import Split
from sds_clip import Client, ClientError, Job

DATA = Path(__file__).parent / "data"
TRAINING_PAIRS = 2048
LEARNT = {
    "objective": "score",
    "teacher": "demo",
    "hyperparameters": {
        "trainable": "all",
        "steps": 60,
        "lr": 5e-4,
        "batch_size": 128,
        "sds_batch_size": 32,
        "warmup_steps": 10,
        "negatives": "swap",
        "score_draws": 4,
    },
}
METRICS = ("group_match", "group_score", "text_score", "image_score")


class Load:
    """Sends requests to /match and /classify continuously, without retries, and counts the results."""

    def __init__(self, url: str | None, image: Path, captions: list[str]) -> None:
        self._url, self._image, self._captions = url, image, captions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.answered: Counter[str] = Counter()
        """Requests by the version that answered."""
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        with Client(self._url, max_attempts=1) as client:
            while not self._stopping.wait(0.1):
                number += 1
                try:
                    if number % 4 == 0:
                        answer = client.classify([self._image], ["a yellow star", "a cyan circle"])
                    else:
                        answer = client.match([self._image], [*self._captions, f"picture {number}"])
                    self.answered[answer["model"]["version"]] += 1
                except ClientError as error:
                    self.failures.append(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="URL of the service (default: SDS_CLIP_URL, or http://127.0.0.1:8000).")
    options = parser.parse_args()
    lines = (DATA / "validation" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    item = next(item for item in map(json.loads, lines) if item["tag"] == "relation")
    image = DATA / "validation" / "images" / f"{item['image_0']}.png"
    captions = [item["caption_0"], item["caption_1"]]
    with Client(options.url) as client, _uploads(client) as sets:
        print(
            f"Uploaded the training data {sets['train']}, the validation data {sets['validation']} "
            f"and the Winoground set {sets['winoground']}."
        )
        before = _winoground(client, sets)
        matched = client.match([image], captions)
        with Load(options.url, image, captions) as load:
            tuned = _finetune(client, sets, LEARNT)
            assert tuned.result is not None
            assert tuned.version is not None
            verdict = tuned.result["promotion"]
            if not verdict["promoted"]:
                client.promote(tuned.version, reason="to show a swap", force=True)
            _wait_for(load, tuned.version)
        after = _winoground(client, sets)
        now = client.match([image], captions)
        _print(before, after, matched, now, captions)
        _check(load, now["model"]["version"], tuned)
    print(
        f"\nThe gate {'promoted' if verdict['promoted'] else 'did not promote'} the new version. {verdict['why']}"
    )
    if not verdict["promoted"]:
        print("The demo then promoted it by hand, to show a swap.")
    print(f"{sum(load.answered.values())} requests were answered meanwhile, by version:")
    for version, count in load.answered.items():
        print(f"  {version[:12]}  {count}")
    print(f"Failed requests: {len(load.failures)}")


@contextmanager
def _uploads(client: Client) -> Iterator[dict[str, str]]:
    """Upload the data sets; yields their ids by role once the service has checked them."""
    with tempfile.TemporaryDirectory(prefix="sds-clip-demo-") as folder:
        train = Path(folder) / "train"
        validation = Path(folder) / "validation"
        write_pairs(train, pairs(Split.TRAIN, DISTILLATION_SEED, 0, TRAINING_PAIRS))
        write_pairs(validation, retrieval_set(Split.VALIDATION))
        sent = {
            "train": client.upload_dataset(train, format="pairs"),
            "validation": client.upload_dataset(validation, format="pairs"),
            "winoground": client.upload_dataset(DATA / "validation", format="winoground"),
        }
        yield {role: _ready(client, dataset["id"]) for role, dataset in sent.items()}


def _ready(client: Client, dataset_id: str) -> str:
    while (found := client.dataset(dataset_id))["status"] == "validating":
        time.sleep(0.2)
    if found["status"] != "ready":
        raise SystemExit(f"The data set {found['name']} is {found['status']}: {found['problems']}")
    return dataset_id


def _winoground(client: Client, sets: dict[str, str]) -> dict[str, Any]:
    job = client.evaluate("winoground", sets["winoground"], model="default").wait(progress=True)
    assert job.result is not None
    metrics: dict[str, Any] = job.result["metrics"]
    return metrics


def _finetune(client: Client, sets: dict[str, str], options: dict[str, Any]) -> Job:
    job = client.finetune(
        sets["train"],
        validation_data=sets["validation"],
        evaluate=[{"benchmark": "winoground", "data": sets["winoground"]}],
        promote="if_better",
        suffix="distilled",
        **options,
    )
    print(f"Submitted the fine-tuning job {job.id}.")
    return job.wait(progress=True)


def _wait_for(load: Load, version: str) -> None:
    """Wait until the load has an answer by a version, or a request has failed."""
    while not load.answered[version] and not load.failures:
        time.sleep(0.1)


def _print(
    before: dict[str, Any],
    after: dict[str, Any],
    was: dict[str, Any],
    now: dict[str, Any],
    captions: list[str],
) -> None:
    print(f"\n{'on the validation set':24}{'before':>8}{'after':>8}{'chance':>8}")
    for name in METRICS:
        shares = (before[name]["value"], after[name]["value"], after[name]["chance"])
        print(f"{name:24}{''.join(f'{100 * share:8.1f}' for share in shares)}")
    print("\nProbabilities by /match for one picture:")
    for place, caption in enumerate(captions):
        first, second = (answer["results"][0]["probabilities"][place] for answer in (was, now))
        print(f"{caption:72}{first:8.3f}{second:8.3f}")


def _check(load: Load, served: str, tuned: Job) -> None:
    if load.failures or served != tuned.version:
        raise SystemExit(
            f"{len(load.failures)} requests failed ({load.failures[:3]}), and version {served} is served; "
            f"expected were no failures and version {tuned.version}."
        )


if __name__ == "__main__":
    main()

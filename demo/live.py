"""What a teacher teaches, on a running system under load: `make demo`, beside `make run`.

Three jobs fine-tune the demo model on pictures whose captions are tags, such as `black, circle, hourglass, lime`. They
say what is there, and not who is where. The jobs differ in one thing:

- The control learns from the tags alone.
- The teacher's student also learns which of eight sentences with these words the demo teacher, a diffusion model, finds
  in each picture.
- The placebo's student learns the same from the teacher's scores, shuffled among the sentences.

The gate (`promote: if_better`) promotes what is better than the model in service, and refuses the rest. Requests keep
coming meanwhile, and are counted. At its end, the demo rolls back.

With --exact, the captions say who is where, and one job learns to choose among each and its swaps. There the control
learns it too (docs/results.md). So this shows the system, and no gain by the teacher.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any

import httpx

from sds_clip import Client, ClientError, Job
from sds_clip.client.schemas import Hyperparameters
from sds_clip.demo.folders import write_image_folder, write_retrieval, write_zero_shot
from sds_clip.demo.load import Load, asks
from sds_clip.demo.options import parser_of
from sds_clip.demo.sets import RETRIEVAL_BATCH, classification_set, retrieval_set
from sds_clip.demo.training_set import Captions, DemoPairs
from sds_clip.demo.world import Split
from sds_clip.models.choices import Objective, ScoreBy

DATA = Path(__file__).parent / "data"
PICTURE = DATA / "heldout" / "images" / "ex_177_img_0.png"
CAPTIONS = (
    "there is a large black circle below a lime hourglass",
    "there is a lime hourglass below a large black circle",
)
"""The first one is right."""
ARMS: dict[str, tuple[Objective, ScoreBy]] = {
    "control": ("clip", "teacher"),
    "placebo": ("score", "shuffled"),
    "teacher": ("score", "teacher"),
}
"""The objective of each arm, and by whom its choice is, if it has one."""
WIDTH = 110


@dataclass(frozen=True)
class World:
    """What is learnt from: pairs, with which captions, how, and by which arms."""

    pairs: int
    captions: Captions
    hyperparameters: Hyperparameters
    arms: tuple[str, ...]


TAGS = World(
    192,
    "tags",
    {
        "trainable": "text-map", "steps": 200, "lr": 1e-3, "batch_size": 64, "warmup_steps": 10,
        "negatives": "data", "negatives_count": 8, "score_candidates": "negatives", "score_draws": 1,
    },
    tuple(ARMS),
)  # fmt: skip
EXACT = World(
    2048,
    "exact",
    {
        "trainable": "all", "steps": 60, "lr": 5e-4, "batch_size": 128, "sds_batch_size": 32, "warmup_steps": 10,
        "negatives": "swap", "score_draws": 4,
    },
    ("teacher",),
)  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--url",
        default=os.environ.get("SDS_CLIP_URL", "http://127.0.0.1:8000"),
        help="URL of the service (default: SDS_CLIP_URL, or http://127.0.0.1:8000).",
    )
    parser.add_argument("--exact", action="store_true", help="Show the world of exact captions.")
    options = parser.parse_args()
    try:
        httpx.get(f"{options.url}/health", timeout=10, trust_env=False).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error).partition("\n")[0]
        sys.exit(f"{options.url}/health does not answer ({why}). Start the system: make run")
    try:
        with Client(options.url) as client:
            show(client, options.url, EXACT if options.exact else TAGS)
    except (ClientError, KeyboardInterrupt) as error:
        sys.exit(str(error) or "The demo was interrupted.")


def show(client: Client, url: str, world: World) -> dict[str, list[float]]:
    """Run the arms one after the other under load, compare them, and roll back.

    Returns the probabilities of CAPTIONS by the model before and by each arm.
    """
    began, prefix, before = time.monotonic(), time.strftime("demo-%m%d-%H%M%S"), _demo_version(client)
    sets = _upload(client, world, prefix)
    jobs: dict[str, Job] = {}
    with Load(url, asks(PICTURE, CAPTIONS)) as load, _rolled_back(client, before):
        for arm in world.arms:
            jobs[arm] = job = _train(client, f"{prefix}-{arm}", world, arm, sets, jobs.get("control"))
            if _result(job)["promotion"]["promoted"]:
                load.wait_for(str(job.version))
        versions = [before, *(str(job.version) for job in jobs.values())]
        answers = client.match([PICTURE], CAPTIONS, models=versions)["answers"]
    shares = [answer["results"][0]["probabilities"] for answer in answers if "results" in answer]
    _print_table(jobs, shares)
    for arm, job in jobs.items():
        verdict = _result(job)["promotion"]
        done = "promoted" if verdict["promoted"] else "refused"
        print(fill(f"The gate {done} {arm}. {verdict['why']}", WIDTH))
    counts = ", ".join(f"{count} by {version[:12]}" for version, count in load.answered.items())
    print(f"\nRequests answered meanwhile: {counts}. Failed: {len(load.failures)}.")
    print(f"The demo took {time.monotonic() - began:.0f} s. Version {before[:12]} is in service again.")
    if load.failures:
        sys.exit(f"The first request that failed: {load.failures[0]}")
    return dict(zip(["before", *jobs], shares, strict=True))


def _demo_version(client: Client) -> str:
    served = {model["name"]: str(model["version"]) for model in client.models()["models"]}
    if "demo" not in served or served.get("default") != served["demo"]:
        sys.exit("The demo model is not in service. Run `make run` without --model, or roll back `default`.")
    return served["demo"]


def _result(job: Job) -> dict[str, Any]:
    assert job.result is not None
    return job.result


def _upload(client: Client, world: World, prefix: str) -> dict[str, str]:
    """Upload the training pairs, and benchmarks of other combinations. Returns the names by format.

    A worker begins to check the first one while the others are drawn.
    """
    names = {}

    def upload(format: str, folder: Path) -> None:
        names[format] = f"{prefix}-{format}"
        client.upload_dataset(folder, format=format, name=names[format])
        print(f"Uploaded the data set {names[format]}.", flush=True)

    upload("winoground", DATA / "validation")
    with tempfile.TemporaryDirectory(prefix="sds-clip-demo-") as name:
        drawn = Path(name)
        write_image_folder(drawn / "pairs", DemoPairs(world.pairs, captions=world.captions))
        upload("pairs", drawn / "pairs")
        write_retrieval(drawn / "retrieval", retrieval_set(Split.VALIDATION, RETRIEVAL_BATCH))
        upload("retrieval", drawn / "retrieval")
        write_zero_shot(drawn / "zero-shot", classification_set(Split.VALIDATION))
        upload("zero-shot", drawn / "zero-shot")
    return names


def _train(
    client: Client, name: str, world: World, arm: str, sets: dict[str, str], control: Job | None
) -> Job:
    """Run one arm's job to its end. If the demo is interrupted, the job is cancelled."""
    objective, score_by = ARMS[arm]
    job = client.finetune(
        sets["pairs"],
        name=name,
        base="demo",
        objective=objective,
        teacher="demo" if objective == "score" else None,
        hyperparameters={**world.hyperparameters, "score_by": score_by},
        evaluate=[{"benchmark": format, "data": data} for format, data in sets.items() if format != "pairs"],
        promote="if_better",
        thresholds={"max_p": 0.001},  # of three jobs on 450 items, one may reach 0.05 by chance
        suffix=arm,
        metadata={} if control is None else {"control": control.id},
    )
    print(f"Submitted the job {name}.")
    try:
        return job.wait(progress=True)
    finally:
        if not job.has_ended:
            job.cancel()


@contextmanager
def _rolled_back(client: Client, version: str) -> Iterator[None]:
    """Roll the alias back to a version at the end."""
    try:
        yield
    finally:
        while client.model("default")["id"] != version:
            client.rollback("default", reason="The demo ends.", wait_s=60)


def _print_table(jobs: dict[str, Job], probabilities: list[list[float]]) -> None:
    measured = [list(_result(job)["evaluations"].values()) for job in jobs.values()]
    before = [each["baseline"] for each in measured[0]]
    heads = ("zero-shot", "retrieval", "right text", "swapped")
    print(f"\n{'%':9}{'GroupMatch (95 % interval)':27}{''.join(f'{head:>11}' for head in heads)}")
    for name, found, shares in zip(["before", *jobs], [before, *measured], probabilities, strict=True):
        print(_row(name, found, "value", shares))
    print(_row("chance", before, "chance", [1 / len(CAPTIONS)] * len(CAPTIONS)))
    print(f"\nThe texts, of {PICTURE.relative_to(DATA.parents[1])}:")
    print(f"  right    {CAPTIONS[0]}\n  swapped  {CAPTIONS[1]}\n")


def _row(name: str, found: list[dict[str, Any]], figure: str, probabilities: list[float]) -> str:
    of = {each["benchmark"]: each["metrics"] for each in found}
    match = of["winoground"]["group_match"]
    interval = f"({100 * match['low']:.1f} to {100 * match['high']:.1f})" if figure == "value" else ""
    recalls = [of["retrieval"][f"{way}_retrieval_recall@1"][figure] for way in ("image", "text")]
    shares = (of["zero-shot"]["acc1"][figure], fmean(recalls), *probabilities)
    return f"{name:9}{100 * match[figure]:10.1f} {interval:16}" + "".join(
        f"{100 * share:11.1f}" for share in shares
    )


if __name__ == "__main__":
    main()

"""What a teacher teaches, on a running system under load: `make demo`, beside `make run`.

Three jobs fine-tune the demo model on pictures whose captions are tags, such as `black, circle, hourglass, lime`. They
say what is there, and not who is where. The jobs differ in one thing:

- The control learns from the tags alone.
- The teacher's student also learns which of eight sentences with these words the demo teacher, a diffusion model, finds
  in each picture.
- The placebo's student learns the same from the teacher's scores, shuffled among the sentences.

The gate (`promote: if_better`) promotes what is better than the model in service, and refuses the rest. The demo asks
for p < 0.001 in place of 0.05, because three jobs are tested. Requests keep coming meanwhile, and are counted. At its
end, the demo rolls back.

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
from sds_clip.client.connection import checked, without_password
from sds_clip.client.errors import APIError, AuthenticationError
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
        default=os.environ.get("SDS_CLIP_URL") or "http://127.0.0.1:8000",
        help="URL of the service. If it asks for an API key, set SDS_CLIP_API_KEY (default: SDS_CLIP_URL, or "
        "http://127.0.0.1:8000).",
    )
    parser.add_argument("--exact", action="store_true", help="Show the world of exact captions.")
    options = parser.parse_args()
    _check_service(options.url)
    try:
        with Client(options.url) as client:
            show(client, options.url, EXACT if options.exact else TAGS)
    except AuthenticationError as error:
        sys.exit(f"{error} To let the demo send it, set SDS_CLIP_API_KEY.")
    except (ClientError, KeyboardInterrupt) as error:
        sys.exit(str(error) or "The demo was interrupted.")


def _check_service(url: str) -> None:
    """Exit unless an SDS-CLIP service is there. Another program is not sent the API key."""
    try:
        shown = without_password(httpx.URL(url))
        # A proxy of the environment is used as by the client, so what answers here is what the client reaches.
        answer = httpx.get(f"{url}/openapi.json", timeout=10)
    except httpx.InvalidURL:
        sys.exit("The URL (--url or SDS_CLIP_URL) is not valid.")  # it may hold a password
    except httpx.HTTPError as error:
        sys.exit(f"{shown} does not answer ({error}). Start the system: make run")
    title = None
    try:
        title = checked(answer).json()["info"]["title"]
    except APIError as error:
        if error.code or answer.is_server_error:
            sys.exit(str(error) if error.code else f"{error}. Start the system: make run")
    except (ValueError, KeyError, TypeError):
        pass
    if title != "SDS-CLIP":
        sys.exit(f"{shown} is no SDS-CLIP service.")


def show(client: Client, url: str, world: World) -> dict[str, list[float]]:
    """Run the arms one after the other under load, compare them, and roll back.

    Returns the probabilities of CAPTIONS by the model before and by each arm.
    """
    began, prefix, before = time.monotonic(), time.strftime("demo-%m%d-%H%M%S"), _demo_version(client)
    sets = _upload(client, world, prefix)
    jobs: dict[str, Job] = {}
    with Load(url, asks(PICTURE, CAPTIONS)) as load, _rolled_back(client, jobs):
        for arm in world.arms:
            job = _train(client, f"{prefix}-{arm}", world, arm, sets, jobs)
            if _result(job)["promotion"]["promoted"]:
                load.wait_for(str(job.version))
        shares = _probabilities(client, [before, *(str(job.version) for job in jobs.values())])
    now = client.model("default")["id"]
    _print_table(jobs, shares)
    for arm, job in jobs.items():
        verdict = _result(job)["promotion"]
        done = "promoted" if verdict["promoted"] else "refused"
        print(fill(f"The gate {done} {arm}. {verdict['why']}", WIDTH))
    counts = ", ".join(f"{count} by {version[:12]}" for version, count in load.answered.items())
    print(f"\nRequests answered meanwhile: {counts}. Failed: {len(load.failures)}.")
    again = " again" if now == before else ", which the demo has not promoted"
    print(f"The demo took {time.monotonic() - began:.0f} s. Version {now[:12]} is in service{again}.")
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
    client: Client, name: str, world: World, arm: str, sets: dict[str, str], jobs: dict[str, Job]
) -> Job:
    """Run one arm's job to its end, and add it to the jobs. If the demo is interrupted, the job is cancelled."""
    objective, score_by = ARMS[arm]
    jobs[arm] = job = client.finetune(
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
        metadata={"control": jobs["control"].id} if "control" in jobs else {},
    )
    print(f"Submitted the job {name}.")
    try:
        return job.wait(progress=True)
    finally:
        if not job.has_ended:
            job.cancel()


def _probabilities(client: Client, versions: list[str]) -> list[list[float]]:
    """The probabilities of CAPTIONS by each version. Raises ClientError if one does not answer."""
    found = []
    for answer in client.match([PICTURE], CAPTIONS, models=versions)["answers"]:
        if "error" in answer:
            raise ClientError(
                f"The version {answer['name'][:12]} did not answer. {answer['error']['message']}"
            )
        found.append(answer["results"][0]["probabilities"])
    return found


@contextmanager
def _rolled_back(client: Client, jobs: dict[str, Job]) -> Iterator[None]:
    """Roll `default` back at the end, while it points to a version of the jobs: others may have promoted another."""
    try:
        yield
    finally:
        own = {client.job(job.id).version for job in jobs.values()}
        while moved := [
            alias
            for alias in client.models()["aliases"]
            if alias["name"] == "default" and alias["version"] in own
        ]:
            generation = moved[0]["generation"]
            client.rollback("default", reason="The demo ends.", expected_generation=generation, wait_s=60)


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

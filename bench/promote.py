"""Measures how long a promotion waits until two serving processes serve it, under load.

Two servers share a database and a data folder, and each computes with half of the cores. Beside them a training run
works, as in bench.swap, and requests arrive at random times at both, together at `share` of the capacity that one has
alone. Each server in turn gets a `POST /models/{version}/promote` with `wait_s`. The versions are LayerNorm deltas, and
each is loaded anew, unless a waiting request still holds it. The time is the caller's, from its request to the answer.
"""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import report, servers
from bench.load import Answer, OpenSpec, run_open_load
from bench.options import cache_option, option, parse
from bench.report import at_least, at_most, note
from bench.swap_system import CALLS, capacity_of, find_inputs, make_versions, training
from sds_clip.app.registry.publish import read_published
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewVersion
from sds_clip.models.checkpoints import load_clip
from sds_clip.models.markdown import markdown_table

WAIT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    model: str = option(
        "", "Base of the deltas. Without it, ViT-B/32 with random weights is created.", quick="demo"
    )
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    promotions: int = option(200, "Number of promotions.", quick=6)
    pause_s: float = option(1.0, "Number of seconds between two promotions.")
    capacity_requests: int = option(600, "Number of requests that measure the capacity.", quick=96)
    share: float = option(0.5, "Share of the capacity at which requests arrive.")
    no_trainer: bool = option(False, "Do not train beside the servers.")
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / "promote"


@dataclass(frozen=True)
class Promotion:
    """How long a caller waited, and whether both processes served the version then."""

    seconds: float
    served_by_both: bool


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.promote", __doc__, arguments)
    heading = report.heading("bench.promote", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    shutil.rmtree(plan.folder, ignore_errors=True)
    data = plan.folder / "data"
    versions = make_versions(data, model, load_clip(model, device="cpu", precision="float32"))
    threads = str(max(1, servers.THREADS // 2))
    environment = {
        # Two teams of OpenMP threads on the same cores wait for each other, and a small forward takes seconds.
        "OMP_NUM_THREADS": threads,
        "SDS_CLIP_THREADS": threads,
        "SDS_CLIP_DATA_DIR": str(data),
        "SDS_CLIP_DATABASE_URL": f"sqlite:///{plan.folder / 'sds-clip.db'}",
    }
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                servers.running(
                    servers.sds_clip(
                        f"promote {name}", "serve", "--model", model, "--precision", plan.precision
                    ),
                    plan.cache,
                    **environment,
                )
            )
            for name in ("one", "two")
        ]
        register(environment["SDS_CLIP_DATABASE_URL"], data, versions)
        stack.enter_context(training(plan.cache, plan.folder, plan.no_trainer))
        note("capacity of one server, in a closed loop")
        rate = plan.share * capacity_of(both[0].port, images, plan.capacity_requests)
        note(f"now {rate:.1f} requests a second, and {plan.promotions} promotions")
        promotions, answers = promote_under_load(plan, both, images, rate, versions)
    seconds = [promotion.seconds for promotion in promotions]
    beside = "nothing beside" if plan.no_trainer else "a training run beside"
    load = [answer.seconds for answer in answers]
    rows = [
        [name, len(found), *report.percentiles(found, 2), f"{max(found):.2f}"]
        for name, found in (("promote with wait_s", seconds), ("/match and /classify meanwhile", load))
    ]
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}; two servers, {rate:.1f} requests a second together, "
        f"{beside}.",
        markdown_table(("request", "number", "p50 s", "p95 s", "p99 s", "slowest s"), rows, text=(0,)),
        *failures(answers),
        targets=[
            at_most("p99 of the wait, s", report.percentile(seconds, 99), 2),
            at_least(
                "promotions that both processes served",
                sum(each.served_by_both for each in promotions),
                len(seconds),
            ),
            at_most("failed requests", sum(answer.status != "200" for answer in answers), 0),
        ],
    )


def failures(answers: list[Answer]) -> list[str]:
    """Up to three failed requests of the load, each with its answer."""
    failed = [answer for answer in answers if answer.status != "200"]
    return [f"Request {each.number}: {each.status}, {each.body[:300]}" for each in failed[:3]]


def register(database_url: str, data: Path, versions: list[str]) -> None:
    """Register the versions in the database, as jobs do that have made them."""
    store = Store(database_url)
    for version in versions:
        found = read_published(data / "versions" / version, version)
        store.versions.register(
            NewVersion(version, f"versions/{version}", found.description, found.size_bytes)
        )
    store.close()


def promote_under_load(
    plan: Plan, both: list[servers.Running], images: list[str], rate: float, versions: list[str]
) -> tuple[list[Promotion], list[Answer]]:
    """The promotions, and the answers to the requests that arrive meanwhile."""
    seconds = plan.promotions * (plan.pause_s + 1)
    promotions = []
    with ThreadPoolExecutor(len(both)) as threads:
        loads = [
            threads.submit(run_open_load, OpenSpec(server.port, CALLS, images, rate / 2, seconds))
            for server in both
        ]
        for number in range(plan.promotions):
            time.sleep(plan.pause_s)
            promotions.append(promote(both[number % 2], versions[number % len(versions)]))
        return promotions, [answer for load in loads for answer in load.result()]


def promote(server: servers.Running, version: str) -> Promotion:
    begun = time.monotonic()
    body = json.dumps({"reason": "a benchmark", "wait_s": WAIT_S})
    answer = server.post(f"/models/{version}/promote", body).raise_for_status().json()
    served_by_both = answer["served_by_all"] and len(answer["processes"]) == 2
    return Promotion(time.monotonic() - begun, served_by_both)


if __name__ == "__main__":
    main()

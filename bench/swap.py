"""Measures a hot swap under load: failed requests, answers mixing versions, latency during a swap, and memory.

One server runs beside a training run, as `sds-clip up` starts it: half of the cores, nice 10. Requests arrive at
random times, at 80 % of the capacity that the server then has: two /match with changing texts for each /classify.
In every other phase an alias is moved from version to version. The versions are LayerNorm deltas over ViT-B/32 with
random weights, and each is loaded anew. `GET /models/status` says since when a version has been served.

A request belongs to a swap if it arrived at most a second before the alias moved and at most three seconds after; the
times are fixed, since a request that waits long is more likely to be there when something happens. The steady requests
are those of the phases without moves. The phases alternate, since other work on the machine comes and goes.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import report, servers
from bench.load import Answer, OpenSpec, run_open_load
from bench.options import cache_option, option, parse
from bench.report import at_least, at_most, note
from bench.serve_measure import build_classes
from bench.swap_check import TOLERANCE, Checked, Reference, check, separation
from bench.swap_system import CALLS, capacity_of, find_inputs, training
from bench.version_set import make_version_set, serving
from sds_clip.models.checkpoints.delta import lay_over
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.sharing import bytes_apart, storages
from sds_clip.models.markdown import markdown_table

BEFORE_S, AFTER_S = 1.0, 3.0
VERSIONS = 4


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    model: str = option(
        "", "Base of the deltas. Without it, ViT-B/32 with random weights is created.", quick="demo"
    )
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    phases: int = option(4, "Number of phases without moves, and of phases with moves.", quick=1)
    swaps: int = option(5, "Number of moves in a phase.", quick=3)
    every_s: float = option(6.0, "Number of seconds between two moves.", quick=4.0)
    steady_s: float = option(20.0, "Number of seconds of a phase without moves.", quick=5.0)
    capacity_requests: int = option(600, "Number of requests that measure the capacity.", quick=96)
    share: float = option(0.8, "Share of the capacity at which requests arrive.")
    no_trainer: bool = option(False, "Do not train beside the server.")
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / "swap"


@dataclass(frozen=True)
class Move:
    """The alias was pointed to a version, which has served since `serving_at`, if at all."""

    at: float
    version: str
    serving_at: float | None


@dataclass(frozen=True)
class Swap:
    """A move of the alias: when it was made, when the version began to serve, and its first answer."""

    at: float
    serving_at: float
    answered_at: float


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.swap", __doc__, arguments)
    heading = report.heading("bench.swap", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    base = load_clip(model, device="cpu", precision="float32")
    versions = make_version_set(plan.folder, model, VERSIONS)
    with (
        serving(plan.folder, model, plan.precision, plan.cache) as running,
        training(plan.cache, plan.folder, plan.no_trainer),
    ):
        build_classes(running, CALLS[2], images[0])
        note("capacity, in a closed loop")
        capacity = capacity_of(running.port, images, plan.capacity_requests)
        rate = plan.share * capacity
        note(
            f"{capacity:.1f} requests a second; now {rate:.1f} at random, {plan.phases} times {plan.swaps} swaps"
        )
        answers, moves, steady = load_and_swap(plan, running, images, rate, versions)
        precision = running.get("/models")["models"][0]["precision"]
    note("checking every answer against its version")
    sources = {version: f"local-dir:{plan.folder / 'data' / 'versions' / version}" for version in versions}
    sources[base.version] = model
    references = {version: Reference(source, precision, images, CALLS) for version, source in sources.items()}
    good = [answer for answer in answers if answer.status == "200"]
    apart = separation(good[:3], references)
    allowed = min(TOLERANCE[precision], apart / 2)
    checked = check(good, references, allowed)
    swaps = in_effect(moves, good)
    phases = {
        "steady": [each for each in answers if any(since <= each.at < until for since, until in steady)],
        "during a swap": [each for each in answers if is_in_a_swap(each, moves)],
    }
    beside = "nothing beside" if plan.no_trainer else "a training run beside"
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}, {precision}; {rate:.1f} requests a second, {beside}.",
        table(phases),
        f"Answers compared: {checked.answers}; the furthest score is {checked.furthest:.2g} from its\n"
        f"version's own ({allowed:.2g} allowed), a mixed one would be {apart:.2g} off at least.\n"
        f"{until_answered(swaps)}",
        targets=targets(
            phases, answers, swaps, len(moves), checked, share_apart(plan.folder, base, versions[0])
        ),
    )


def load_and_swap(
    plan: Plan, running: servers.Running, images: list[str], rate: float, versions: list[str]
) -> tuple[list[Answer], list[Move], list[tuple[float, float]]]:
    """The answers of the whole run, each move of the alias, and the times of the phases without moves."""
    seconds = plan.phases * (plan.steady_s + plan.swaps * plan.every_s)
    moves: list[Move] = []
    steady: list[tuple[float, float]] = []
    with ThreadPoolExecutor(1) as thread:
        load = thread.submit(run_open_load, OpenSpec(running.port, CALLS, images, rate, seconds))
        for _ in range(plan.phases):
            began_at = time.monotonic()
            time.sleep(plan.steady_s)
            steady.append((began_at, time.monotonic() - BEFORE_S))
            for _ in range(plan.swaps):
                version = versions[len(moves) % len(versions)]
                at = time.monotonic()
                promote(running, version)
                time.sleep(plan.every_s)
                moves.append(Move(at, version, serving_since(running, version)))
        return load.result(), moves, steady


def promote(running: servers.Running, version: str) -> None:
    asked = {"alias": "default", "reason": "a swap", "force": True}
    running.post(f"/models/{version}/promote", json.dumps(asked)).raise_for_status()


def serving_since(running: servers.Running, version: str) -> float | None:
    """When the version began to serve, on the monotonic clock; None if it does not."""
    [process] = running.get("/models/status")["processes"]
    [since] = [name["since"] for name in process["models"] if name["version"] == version] or [None]
    return None if since is None else since - time.time() + time.monotonic()


def in_effect(moves: Sequence[Move], good: Sequence[Answer]) -> list[Swap]:
    """The moves that took effect before the next one."""
    arrived = sorted(
        (answer.at + answer.seconds, json.loads(answer.body)["model"]["version"]) for answer in good
    )
    ends = [*(move.at for move in moves[1:]), float("inf")]
    swaps = []
    for move, end in zip(moves, ends, strict=True):
        answers = (when for when, version in arrived if version == move.version and move.at < when < end)
        answered_at = next(answers, None)
        if move.serving_at is not None and answered_at is not None:
            swaps.append(Swap(move.at, move.serving_at, answered_at))
    return swaps


def is_in_a_swap(answer: Answer, moves: Sequence[Move]) -> bool:
    return any(-BEFORE_S <= answer.at - move.at < AFTER_S for move in moves)


def milliseconds(answers: Sequence[Answer]) -> list[float]:
    return [answer.seconds * 1000 for answer in answers]


def table(phases: Mapping[str, Sequence[Answer]]) -> str:
    rows = []
    for path in ("all", "/match", "/classify"):
        for stage, answers in phases.items():
            some = [each for each in answers if path in ("all", CALLS[each.number % len(CALLS)].path)]
            rows.append([path, stage, len(some), *report.percentiles(milliseconds(some), 0)])
    return markdown_table(("requests", "", "number", "p50 ms", "p95 ms", "p99 ms"), rows, text=(0, 1))


def until_answered(swaps: Sequence[Swap]) -> str:
    """Median and maximum times of a swap's stages."""
    serving = [swap.serving_at - swap.at for swap in swaps] or [float("nan")]
    answered = [swap.answered_at - swap.at for swap in swaps] or [float("nan")]
    return (
        f"From the alias's move a version serves after {median(serving):.2f} s ({max(serving):.2f} at most), and "
        f"its first answer has come after {median(answered):.2f} s ({max(answered):.2f} at most)."
    )


def share_apart(folder: Path, base: Clip, version: str) -> float:
    """Percent of a version's tensor bytes not shared with its base."""
    clip = lay_over(base, read_delta(folder / "data" / "versions" / version))
    return 100 * bytes_apart([clip.network], [base.network]) / sum(storages(clip.network).values())


def targets(
    phases: Mapping[str, Sequence[Answer]],
    answers: Sequence[Answer],
    swaps: Sequence[Swap],
    moves: int,
    checked: Checked,
    apart: float,
) -> list[report.Target]:
    failed = sum(answer.status != "200" for answer in answers)
    steady, during = (report.percentile(milliseconds(phase), 99) for phase in phases.values())
    slowest = max((swap.serving_at - swap.at for swap in swaps), default=float("inf"))
    return [
        at_most("failed requests", failed, 0),
        at_most("answers mixing versions", checked.mixed, 0),
        at_least("swaps in effect before the next", len(swaps), moves),
        at_most("p99 during a swap over steady p99", during / steady, 1.2),
        at_most("slowest from the move until the version serves, s", slowest, 3),
        at_most("tensor bytes not shared, %", apart, 1),
    ]


if __name__ == "__main__":
    main()

"""Measures a hot swap under load: failed requests, answers mixing versions, latency during a swap, and memory.

One server runs beside a training run, as `sds-clip up` starts it: half of the cores, nice 10. Requests arrive at
random times, at 80 % of the capacity that the server then has: two /match with changing texts for each /classify.
An alias is moved from version to version. The versions are LayerNorm deltas over ViT-B/32 with random weights, and
each is loaded anew. A swap lasts from the alias's move until a second after the new version's first answer.
`GET /models/status` says since when a version has been served.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import report, servers
from bench.file_aliases import FileAliases
from bench.load import Answer, OpenSpec, run_open_load
from bench.options import cache_option, option, parse
from bench.report import at_least, at_most, note
from bench.serve_measure import build_classes
from bench.swap_check import TOLERANCE, Checked, Reference, check, separation
from bench.swap_system import CALLS, capacity_of, find_inputs, make_versions, training
from models.checkpoints import load_clip
from models.clip import Clip
from models.delta import lay_over
from models.delta_file import read_delta
from models.markdown import markdown_table
from models.sharing import bytes_apart, storages

AFTER_S = 1.0  # a swap is over this long after the first answer


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    model: str = option(
        "", "Base of the deltas. Without it, ViT-B/32 with random weights is created.", quick="demo"
    )
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    swaps: int = option(20, "Number of moves of the alias.", quick=3)
    every_s: float = option(6.0, "Number of seconds between two moves.", quick=4.0)
    steady_s: float = option(60.0, "Number of seconds before the first move.", quick=5.0)
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
    versions = make_versions(plan.folder, model, base)
    command = (sys.executable, "-m", "bench.swap_server", model, plan.precision, str(plan.folder))
    server = servers.Server(f"swap {plan.precision}", command)
    with servers.running(server, plan.cache) as running, training(plan.cache, plan.folder, plan.no_trainer):
        build_classes(running, CALLS[2], images[0])
        note("capacity, in a closed loop")
        capacity = capacity_of(running.port, images, plan.capacity_requests)
        rate = plan.share * capacity
        note(f"{capacity:.1f} requests a second; now {rate:.1f} at random, and {plan.swaps} swaps")
        answers, moves = load_and_swap(plan, running, images, rate, versions)
        precision = running.get("/models")["models"][0]["precision"]
    note("checking every answer against its version")
    sources = {version: f"local-dir:{plan.folder / 'versions' / version}" for version in versions}
    sources[base.version] = model
    references = {version: Reference(source, precision, images, CALLS) for version, source in sources.items()}
    good = [answer for answer in answers if answer.status == "200"]
    apart = separation(good[:3], references)
    allowed = min(TOLERANCE[precision], apart / 2)
    checked = check(good, references, allowed)
    swaps = in_effect(moves, good)
    beside = "nothing beside" if plan.no_trainer else "a training run beside"
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}, {precision}; {rate:.1f} requests a second, {beside}.",
        table(answers, swaps),
        f"Answers compared: {checked.answers}; the furthest score is {checked.furthest:.2g} from its\n"
        f"version's own ({allowed:.2g} allowed), a mixed one would be {apart:.2g} off at least.\n"
        f"{until_answered(swaps)}",
        targets=targets(answers, swaps, len(moves), checked, share_apart(plan.folder, base, versions[0])),
    )


def load_and_swap(
    plan: Plan, running: servers.Running, images: list[str], rate: float, versions: list[str]
) -> tuple[list[Answer], list[Move]]:
    """The answers of the whole run, and each move of the alias."""
    aliases = FileAliases(plan.folder / "aliases.json")
    seconds = plan.steady_s + plan.swaps * plan.every_s + AFTER_S
    moves = []
    with ThreadPoolExecutor(1) as thread:
        load = thread.submit(run_open_load, OpenSpec(running.port, CALLS, images, rate, seconds))
        time.sleep(plan.steady_s)
        for number in range(plan.swaps):
            version = versions[number % len(versions)]
            at = time.monotonic()
            aliases.point("default", version)
            time.sleep(plan.every_s)
            moves.append(Move(at, version, serving_since(running, version)))
        return load.result(), moves


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


def in_a_swap(answer: Answer, swaps: Sequence[Swap]) -> bool:
    """Whether a request was in progress during a swap."""
    return any(
        answer.at < swap.answered_at + AFTER_S and answer.at + answer.seconds > swap.at for swap in swaps
    )


def milliseconds(answers: Sequence[Answer], swaps: Sequence[Swap], *, during: bool) -> list[float]:
    return [answer.seconds * 1000 for answer in answers if in_a_swap(answer, swaps) is during]


def table(answers: Sequence[Answer], swaps: Sequence[Swap]) -> str:
    rows = []
    for path in ("all", "/match", "/classify"):
        some = [each for each in answers if path in ("all", CALLS[each.number % len(CALLS)].path)]
        for during in (False, True):
            found = milliseconds(some, swaps, during=during)
            stage = "during a swap" if during else "steady"
            rows.append([path, stage, len(found), *report.percentiles(found, 0)])
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
    clip = lay_over(base, read_delta(folder / "versions" / version))
    return 100 * bytes_apart([clip.network], [base.network]) / sum(storages(clip.network).values())


def targets(
    answers: Sequence[Answer], swaps: Sequence[Swap], moves: int, checked: Checked, apart: float
) -> list[report.Target]:
    failed = sum(answer.status != "200" for answer in answers)
    steady = report.percentile(milliseconds(answers, swaps, during=False), 99)
    during = report.percentile(milliseconds(answers, swaps, during=True) or [float("inf")], 99)
    slowest = max((swap.serving_at - swap.at for swap in swaps), default=float("inf"))
    return [
        at_most("failed requests", failed, 0),
        at_most("answers mixing versions", checked.mixed, 0),
        at_least("swaps in effect before the next", len(swaps), moves),
        at_most("p99 during a swap over steady p99", during / steady, 1.5),
        at_most("slowest from the move until the version serves, s", slowest, 3),
        at_most("tensor bytes not shared, %", apart, 1),
    ]


if __name__ == "__main__":
    main()

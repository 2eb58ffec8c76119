"""Measures how fast the console is, and what open consoles cost those who ask for matches.

One server has 10,000 finished jobs and one that runs. One of the finished ones has 100,000 points of eight metrics, and
so has the running one, which gets another every second, as a worker writes it. Chromium opens each page in turn, with
the console's files in its cache; a page is of use when it shows what was asked for. Then requests for /match arrive at
random times, at `share` of the capacity, in phases with and without scripted sessions of the console, whose process has
a low priority.
"""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench import report, servers
from bench.console_pages import (
    SIZE,
    ZOOM,
    Scrolling,
    Wanted,
    measure_paints,
    measure_reactions,
    measure_scrolling,
)
from bench.console_sessions import SessionsSpec, run_sessions
from bench.curves import NAMES, POINTS, add_points
from bench.job_lists import MANY, fill, submit
from bench.load import Answer, OpenSpec, run_open_load
from bench.neighbours import MATCH, capacity_of
from bench.options import cache_option, option, parse
from bench.report import at_most, note
from bench.rounds import in_turns
from bench.swap_system import find_inputs
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease
from sds_clip.app.store.states import JobKind
from sds_clip.models.markdown import markdown_table
from tools.chromium import chromium

SETTLE_S = 3.0
"""All pages are open by then: they open within two seconds."""
LEASE_S = 3600.0
CURVES = f"#/jobs/{{id}}, its curves of {POINTS} points"
ALONE, WITH = "no session", "with sessions"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    model: str = option("", "Model. Without it, ViT-B/32 with random weights is created.", quick="demo")
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    visits: int = option(15, "Number of visits of each page.", quick=2)
    sessions: int = option(50, "Number of open consoles.", quick=8)
    rounds: int = option(4, "Number of rounds in which phases with and without sessions take turns.", quick=1)
    seconds: float = option(40.0, "Number of seconds of a phase.", quick=2.0)
    share: float = option(0.5, "Share of the capacity at which requests arrive.")
    capacity_requests: int = option(300, "Number of requests that measure the capacity.", quick=64)
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / "console"


@dataclass(frozen=True)
class Phase:
    """The answers to /match, and the numbers of answers and events that the sessions got."""

    answers: list[Answer]
    sessions: dict[str, int]


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.console", __doc__, arguments)
    heading = report.heading("bench.console", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    shutil.rmtree(plan.folder, ignore_errors=True)
    url = f"sqlite:///{plan.folder / 'jobs.db'}"
    finished = fill(url, MANY)
    lease = run_job(url)
    add_points(url, finished)
    add_points(url, lease.job_id)
    server = servers.sds_clip("console", "serve", "--model", model, "--precision", plan.precision)
    with (
        servers.running(
            server, plan.cache, SDS_CLIP_DATABASE_URL=url, SDS_CLIP_DATA_DIR=str(plan.folder / "data")
        ) as running,
        point_each_second(url, lease),
    ):
        note("pages in Chromium")
        with chromium() as browser, browser.new_context(viewport=SIZE) as context:  # type: ignore[arg-type]
            paints = measure_paints(context, running.url, pages(lease.job_id), plan.visits)
            scrolling = measure_scrolling(context, running.url, 0.3 * plan.visits, plan.visits)
            reactions = measure_reactions(context, running.url, finished, plan.visits)
        note("capacity for /match, in a closed loop")
        rate = plan.share * capacity_of(running.port, "", images, plan.capacity_requests)
        note(f"now {rate:.1f} requests a second at random")
        runs = {
            name: partial(measure, plan, running.port, images, rate, lease.job_id, count)
            for name, count in ((ALONE, 0), (WITH, plan.sessions))
        }
        phases = in_turns("phase", plan.rounds, runs)
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}; /match {rate:.1f} times a second, {plan.share:.0%} of "
        f"its capacity; {plan.sessions} sessions.",
        paint_table(paints),
        movement_table(scrolling, reactions),
        session_table(phases),
        sessions_line(phases[WITH]),
        targets=targets(paints, scrolling, reactions, phases),
    )


def pages(job: str) -> dict[str, Wanted]:
    """The pages, and of a job's page also the curves."""
    complete = "main .page:has(h1):not(:has(.skeleton))"
    return {
        "#/try": Wanted("try", "main textarea"),
        "#/jobs": Wanted("jobs", "main tbody tr"),
        "#/jobs/{id}": Wanted(f"jobs/{job}", "main header h1"),
        CURVES: Wanted(f"jobs/{job}", "main .chart canvas"),
        "#/new": Wanted("new", "main form"),
        "#/data": Wanted("data", "main tbody tr"),
        "#/results": Wanted("results", complete),
        "#/versions": Wanted("versions", complete),
        "#/service": Wanted("service", "main .service-tiles"),
    }


def run_job(url: str) -> Lease:
    """Submit another job, and claim it as a worker does."""
    store = Store(url)
    data = store.datasets.add(name="bench", format="pairs", source={}, owner="")
    checked = store.datasets.claim_check("bench", LEASE_S)
    assert checked is not None
    store.datasets.accept(checked, content_hash="0" * 64, counts={"samples": 1000, "usable": 1000})
    submit(store, data.id)
    claimed = store.leases.claim(JobKind.FINETUNE, "bench", LEASE_S)
    store.close()
    assert claimed is not None
    return Lease.of(claimed)


@contextmanager
def point_each_second(url: str, lease: Lease) -> Iterator[None]:
    """Let the job go on while the context lasts."""
    ended = threading.Event()

    def write() -> None:
        store = Store(url)
        step = POINTS
        while not ended.wait(1.0):
            step += 1
            store.leases.points(lease, {step: dict.fromkeys(NAMES, 1.0)})
            store.leases.progress(lease, stage="train", step=step, steps=2 * POINTS)
        store.close()

    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(write)
        try:
            yield
        finally:
            ended.set()
            writing.result()


def measure(plan: Plan, port: int, images: Sequence[str], rate: float, job: str, sessions: int) -> Phase:
    """A phase of /match, beside so many sessions."""
    with ThreadPoolExecutor(1) as thread:
        spec = SessionsSpec(port, job, sessions, SETTLE_S + plan.seconds + 1)
        browsing = thread.submit(run_sessions, spec) if sessions else None
        ended = threading.Event()
        ended.wait(SETTLE_S)
        answers = run_open_load(OpenSpec(port, [MATCH], list(images), rate, plan.seconds))
        return Phase(answers, browsing.result() if browsing else {})


def milliseconds(phase: Phase) -> list[float]:
    failed = [answer for answer in phase.answers if answer.status != "200"]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed: {failed[0].status} {failed[0].body[:300]}")
    return [1000 * answer.seconds for answer in phase.answers]


def paint_table(paints: Mapping[str, Sequence[float]]) -> str:
    rows = [[name, *report.percentiles(ms, 0)] for name, ms in paints.items()]
    return markdown_table(("page is of use after", "p50 ms", "p95 ms", "p99 ms"), rows, text=(0,))


def movement_table(scrolling: Scrolling, reactions: Mapping[str, Sequence[float]]) -> str:
    times = {
        f"a frame while the list of {MANY} jobs scrolls": scrolling.frames_ms,
        "older jobs are shown": scrolling.older_ms,
        **{f"curves of {POINTS} points: {what}": ms for what, ms in reactions.items()},
    }
    rows = [[what, *report.percentiles(ms, 0)] for what, ms in times.items()]
    return markdown_table(("movement", "p50 ms", "p95 ms", "p99 ms"), rows, text=(0,))


def session_table(phases: Mapping[str, Sequence[Phase]]) -> str:
    rows = []
    for name, found in phases.items():
        ms = [time for phase in found for time in milliseconds(phase)]
        rows.append([name, len(ms), *report.percentiles(ms, 1)])
    return markdown_table(("/match beside", "requests", "p50 ms", "p95 ms", "p99 ms"), rows, text=(0,))


def sessions_line(phases: Sequence[Phase]) -> str:
    got = sum((Counter(phase.sessions) for phase in phases), Counter[str]())
    return f"The sessions got {', '.join(f'{count} x {what}' for what, count in sorted(got.items()))}."


def targets(
    paints: Mapping[str, Sequence[float]],
    scrolling: Scrolling,
    reactions: Mapping[str, Sequence[float]],
    phases: Mapping[str, Sequence[Phase]],
) -> list[report.Target]:
    alone, beside = (
        report.percentile([ms for phase in phases[name] for ms in milliseconds(phase)], 99)
        for name in (ALONE, WITH)
    )
    zoom = reactions[ZOOM]
    slowest = max(report.percentile(ms, 95) for name, ms in reactions.items() if name != ZOOM)
    return [
        at_most("slowest page or curve is there, median ms", max(median(ms) for ms in paints.values()), 1000),
        # A screen draws each 17 ms, so one frame in twenty may be left out.
        at_most("frames while the list scrolls, p95 ms", report.percentile(scrolling.frames_ms, 95), 34),
        # web.dev/articles/inp calls an interaction good up to here.
        at_most("slowest reaction of curves, p95 ms", slowest, 200),
        at_most("a part of the curves is seen closer, p95 ms", report.percentile(zoom, 95), 1000),
        at_most("p99 of /match beside sessions over p99 alone", beside / alone, 1.1),
    ]


if __name__ == "__main__":
    main()

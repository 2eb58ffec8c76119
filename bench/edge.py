"""Where a request's time goes: `python -m bench.edge --py-spy PATH`.

32 clients ask `/embed` for ViT-B/32's embedding of an image each, without pauses, while py-spy samples the service's
threads (`pip install py-spy` in any environment). A sample counts for the innermost frame that belongs to a part. The
threads of OpenMP have no Python frames: their time is the process's, less what was sampled.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import report, servers
from bench.load import IMAGE, Call, LoadSpec, run_load
from bench.options import cache_option, option, parse
from bench.report import at_most, note
from bench.swap_system import find_inputs
from sds_clip.models.markdown import markdown_table

PARTS = (
    ("forward pass", r"_in_chunks|encode_images|encode_texts"),
    ("answer of a job (head)", r"_answer|_features_of"),
    ("JPEG to pixels", r"decode_file|open_image|preprocess|models/images|PIL/|torchvision/"),
    ("base64 to bytes", r"image_bytes"),
    (
        "order and budget of decodes",
        r"app/images|app/decode_budget|app/serving/pixels|concurrent/futures",
    ),
    ("JSON and its validation", r"app/bodies"),
    ("JSON of the answer", r"json_answer"),
    ("answer's values", r"predictor.py.*written|tolist"),
    ("batching and admission", r"app/serving/batcher|app/serving/engine|app/serving/turns"),
    ("model, limits, rates", r"app/serving|app/limits|app/budgets"),
    (
        "middleware",
        r"app/(middleware|guard|limit_key|responses|disconnect|streamed_body|places|metrics|tracing)",
    ),
    ("HTTP", r"uvicorn|httptools|app/protocol|h11"),
    ("routing and dependencies", r"fastapi|starlette|app/(query|auth|keys|session)"),
    ("event loop", r"asyncio|uvloop|uvicorn/server"),
)
"""Parts, and the frames that belong to them. The first part of the innermost frame counts."""
WAITING = r"_worker \(concurrent/futures/thread\.py:\d+\)$"
"""The innermost frame of a thread of a pool that has nothing to do."""


@dataclass(frozen=True)
class Plan:
    """How much is sampled."""

    py_spy: str = option("py-spy", "Path of py-spy.")
    model: str = option("", "Model. Without it, ViT-B/32 with random weights is created.", quick="demo")
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    requests: int = option(1000, "Number of requests.", quick=64)
    clients: int = option(32, "Number of clients.", quick=4)
    rate: int = option(100, "Number of samples a second.")
    cache: Path = cache_option()


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.edge", __doc__, arguments)
    heading = report.heading("bench.edge", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    server = servers.sds_clip("edge", "serve", "--model", model, "--precision", plan.precision)
    call = Call("embed", "/embed", json.dumps({"images": [IMAGE]}))
    with servers.running(server, plan.cache) as running, tempfile.TemporaryDirectory() as folder:
        note("warming up")
        run_load(LoadSpec(running.port, [call], images, plan.clients, 0, 4 * plan.clients))
        file = Path(folder) / "stacks"
        with sampled(plan, running.pid, file):
            began_s = processor_seconds(running.pid)
            result = run_load(LoadSpec(running.port, [call], images, plan.clients, 0, plan.requests))
            used_s = processor_seconds(running.pid) - began_s
        parts = by_part(file.read_text(), plan.rate)
    in_python_s = sum(parts.values())
    parts["OpenMP's threads, and what was not sampled"] = max(0.0, used_s - in_python_s)
    rows = [
        [name, f"{1000 * seconds / plan.requests:.2f}", f"{seconds / used_s:.1%}"]
        for name, seconds in sorted(parts.items(), key=lambda part: -part[1])
    ]
    computed = {"forward pass", "JPEG to pixels", "OpenMP's threads, and what was not sampled"}
    edge_s = sum(seconds for name, seconds in parts.items() if name not in computed)
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}, {plan.precision}; {plan.clients} clients, "
        f"{result.requests_per_second:.1f} requests a second.",
        markdown_table(("part", "core-ms a request", "share"), rows, text=(0,)),
        f"The service took {1000 * used_s / plan.requests:.1f} ms of a core for each request.",
        targets=[
            at_most("share of what is neither decoding nor the forward pass, %", 100 * edge_s / used_s, 5)
        ],
    )


@contextmanager
def sampled(plan: Plan, pid: int, file: Path) -> Iterator[None]:
    """Sample a process within the block. Raises SystemExit if py-spy fell behind, so that its counts mean nothing."""
    options = (
        f"record --format raw --rate {plan.rate} --duration unlimited --nonblocking --pid {pid} --output"
    )
    command = (plan.py_spy, *options.split(), str(file))
    said = file.with_name("py-spy.log")
    with (
        servers.ended_by_sigterm(),
        said.open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as sampler,
    ):
        try:
            time.sleep(1)
            yield
        finally:
            sampler.send_signal(signal.SIGINT)
            sampler.wait(60)
    if behind := re.search(r"\S+ behind in sampling", said.read_text()):
        raise SystemExit(
            f"py-spy was {behind[0]}, so that there is no table. Give the machine less to do, or try a lower --rate "
            f"than {plan.rate}."
        )


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def by_part(stacks: str, rate: int) -> dict[str, float]:
    """Seconds of each part, from lines of frames, outermost first, and a count."""
    found = Counter[str]()
    for line in stacks.splitlines():
        frames, count = line.rsplit(" ", 1)
        if not re.search(WAITING, frames):
            found[part_of(frames.split(";"))] += int(count)
    return {name: count / rate for name, count in found.items()}


def part_of(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in PARTS:
            if re.search(pattern, frame):
                return name
    return "other"


if __name__ == "__main__":
    main()

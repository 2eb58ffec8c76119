"""Measures the CPU seconds until the service's first right answer, of `--help`, and of the client's first answer.

The service has ViT-B/32 with random weights. Work of others on the machine disturbs CPU time less than the clock.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench import embedders, report, servers, weights
from bench.options import cache_option, option, parse
from bench.sets import make_images
from sds_clip.models.markdown import markdown_table

READY, ANSWER, HELP, CLIENT = (
    "service ready",
    "service's first right answer",
    "--help",
    "client's first answer",
)
CALL = "import sys; from sds_clip import Client; Client(sys.argv[1]).match([sys.argv[2]], ['a dog', 'a cat'])"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = option(7, "Number of rounds, after one that does not count.", quick=1)
    threads: int = option(1, "Threads of the service. While several wait for a core, they burn CPU time.")
    cache: Path = cache_option()


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.start", __doc__, arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # any start but the first finds byte-code
    heading = report.heading("bench.start", arguments)
    folder = weights.make_open_clip(plan.cache / weights.ARCHITECTURE)
    [image] = make_images(plan.cache / "images", 1)
    [right] = weights.open_clip_features(folder, [image])
    rounds = [measure(plan, folder, image, right) for _ in range(plan.rounds + 1)][1:]
    found = {name: [each[name] for each in rounds] for name in rounds[0]}
    table = markdown_table(
        ("what", "CPU s"), [[name, report.spread(each, 2)] for name, each in found.items()]
    )
    most = {ANSWER: 6, HELP: 0.3, CLIENT: 0.3}
    targets = [report.at_most(name, median(found[name]), bound) for name, bound in most.items()]
    report.show(heading, report.versions(report.SERVICE), table, targets=targets)


def measure(plan: Plan, folder: Path, image: Path, right: np.ndarray) -> dict[str, float]:
    ours = embedders.ours(f"local-dir:{folder}", "cpu", "auto")
    with servers.running(ours.server, plan.cache, SDS_CLIP_THREADS=str(plan.threads)) as service:
        found = {READY: service.cpu_seconds()}
        answer = service.post(ours.embed.path, ours.embed.filled(str(image))).text
        found[ANSWER] = service.cpu_seconds()
        if ours.embedding(answer) @ right < 0.9999:
            raise RuntimeError(f"open_clip has other features than {answer}.")
        found[CLIENT] = cpu_seconds("-c", CALL, service.url, str(image))
        found["service's first /match too"] = service.cpu_seconds()
    return found | {HELP: cpu_seconds("-m", "sds_clip", "--help")}


def cpu_seconds(*command: str) -> float:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}.")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()

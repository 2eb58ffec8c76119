"""Measures the CPU seconds until the service's first right answer, of `--help`, and of the client's first answer.

The service has ViT-B/32 with random weights. Work of others on the machine disturbs CPU time less than the clock.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch

from bench import report, servers, weights
from bench.load import IMAGE, Call
from bench.options import cache_option, option, parse
from bench.sets import make_images
from sds_clip.models.markdown import markdown_table

TEXTS = ["a photo of a dog", "a photo of a cat"]
MATCH = Call("match", "/match", f'{{"images": ["{IMAGE}"], "texts": ["{TEXTS[0]}", "{TEXTS[1]}"]}}')
CALL = "import sys; from sds_clip import Client; Client(sys.argv[1]).match([sys.argv[2]], ['a photo of a dog'])"
READY, ANSWER, HELP, CLIENT = "service ready", "service's first right answer", "--help", "client's first answer"
MOST_S = {ANSWER: 6, HELP: 0.3, CLIENT: 0.3}


@dataclass(frozen=True)
class Plan:
    rounds: int = option(7, "Number of rounds, after one that does not count.", quick=1)
    cache: Path = cache_option()


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.start", __doc__, arguments)
    heading = report.heading("bench.start", arguments)
    folder = weights.make_open_clip(plan.cache / weights.ARCHITECTURE)
    [image] = make_images(plan.cache / "images", 1)
    model, tokenizer = open_clip.create_model(f"local-dir:{folder}"), open_clip.get_tokenizer(weights.ARCHITECTURE)
    with torch.inference_mode():
        texts = model.eval().encode_text(tokenizer(TEXTS), normalize=True).numpy()
    right = texts @ weights.open_clip_features(folder, [image])[0]
    rounds = [measure(folder, image, right, plan.cache) for _ in range(plan.rounds + 1)][1:]
    found = {name: [each[name] for each in rounds] for name in rounds[0]}
    table = markdown_table(("what", "CPU s"), [[name, report.spread(each, 2)] for name, each in found.items()])
    targets = [report.at_most(name, float(np.median(found[name])), most) for name, most in MOST_S.items()]
    report.show(heading, report.versions(report.SERVICE), table, targets=targets)


def measure(folder: Path, image: Path, right: np.ndarray, cache: Path) -> dict[str, float]:
    with servers.running(servers.sds_clip("start", "serve", "--model", f"local-dir:{folder}"), cache) as service:
        found = {READY: service.cpu_seconds()}
        answer = service.post(MATCH.path, MATCH.filled(str(image))).json()["results"][0]["scores"]
        found[ANSWER] = service.cpu_seconds()
        if not np.allclose(answer, right, atol=0.005):
            raise RuntimeError(f"The service answered {answer}, and open_clip {right}.")
        found[HELP] = cpu_seconds("-m", "sds_clip", "--help")
        found[CLIENT] = cpu_seconds("-c", CALL, service.url, str(image))
    return found


def cpu_seconds(*command: str) -> float:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}.")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()

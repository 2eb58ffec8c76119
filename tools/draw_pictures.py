"""Draw the README's pictures: `make pictures`.

- match.png: a picture of the demo world, and what the demo CLIP, the control and the teacher's student make of its
  caption and of the one with the places exchanged. All jobs of `make demo` run for it, on a system of their own.
- run.svg: what `make run` shows in a terminal. The system is started for it, in a folder of its own.
"""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.text import Text

from sds_clip import Client
from sds_clip.demo import live
from tests.sds_clip.embedded import Running

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "assets" / "images"
VERSIONS = {"before": "the demo CLIP", "control": "the control", "teacher": "the teacher's student"}
RIGHT, WRONG = "#228833", "#bb4455"
LAST_WORDS = b"sds-clip jobs list"
LIMIT_S = 120
COLUMNS = 118
_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""rich names fonts on another host; the reader's own do."""


def main() -> None:
    draw_match(OUT / "match.png")
    draw_run(OUT / "run.svg")


def draw_match(file: Path) -> None:
    shares = _shares_of_the_demo()
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 3.6))
    left.imshow(Image.open(live.PICTURE))
    left.set_axis_off()
    began = [0.0] * len(VERSIONS)
    for place, (caption, colour) in enumerate(zip(live.CAPTIONS, (RIGHT, WRONG), strict=True)):
        width = [100 * shares[arm][place] for arm in VERSIONS]
        bars = right.barh(list(VERSIONS.values()), width, left=began, color=colour, label=caption)
        right.bar_label(bars, fmt="{:.0f} %", label_type="center", color="white")
        began = width
    right.invert_yaxis()
    right.set_xlim(0, 100)
    right.set_xticks([])
    right.spines[:].set_visible(False)
    right.tick_params(length=0)
    figure.legend(loc="outside upper right", frameon=False)
    figure.savefig(file, dpi=110)


def _shares_of_the_demo() -> dict[str, list[float]]:
    """The probabilities of the demo's two captions, by version."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Running(Path(folder))) as system,
        Client(system.url) as client,
    ):
        return live.show(client, system.url, live.TAGS)


def draw_run(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        screen = _screen(["up", "--data-dir", f"{folder}/data"]).replace(f"{folder}/", "")
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(f"$ make run\n{screen.strip()}"))
    file.write_text(_FONTS.sub("", console.export_svg(title="make run")), encoding="utf-8")


def _screen(arguments: list[str]) -> str:
    """What the command shows until it is ready. It is stopped then."""
    reading, writing = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sds_clip", *arguments], cwd=ROOT, stdout=writing, stderr=writing
    )
    os.close(writing)
    shown = b""
    deadline = time.monotonic() + LIMIT_S
    with os.fdopen(reading, "rb", buffering=0) as terminal:
        while LAST_WORDS not in shown and process.poll() is None and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                shown += terminal.read(65536)
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:  # a terminal that nobody reads would hold the processes up
            try:
                if select.select([terminal], [], [], 0.2)[0]:
                    terminal.read(65536)
            except OSError:  # every writer has closed it
                break
    process.wait()
    if LAST_WORDS not in shown:
        raise SystemExit(f"The system did not become ready:\n{shown.decode()}")
    return shown.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main()

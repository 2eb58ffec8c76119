"""Draw the README's pictures: `make pictures`.

- match.png: a picture of the demo world, and what the demo CLIP makes of three captions.
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
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.text import Text

from models.checkpoints import load_clip
from models.encode import encode_images, encode_texts
from models.scoring import match

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "assets" / "images"
PICTURE = ROOT / "demo" / "data" / "heldout" / "images" / "ex_177_img_0.png"
CAPTIONS = {
    "there is a large black circle\nbelow a lime hourglass": "#228833",
    "there is a lime hourglass\nbelow a large black circle": "#ee6677",
    "there is a large lime circle\nbelow a black hourglass": "0.6",
}
LAST_WORDS = b"sds-clip jobs list"
LIMIT_S = 120
COLUMNS = 118
_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""rich names fonts on another host; the reader's own do."""


def main() -> None:
    draw_match(OUT / "match.png")
    draw_run(OUT / "run.svg")


def draw_match(file: Path) -> None:
    clip = load_clip("demo", precision="float32")
    image = Image.open(PICTURE).convert("RGB")
    captions = [caption.replace("\n", " ") for caption in CAPTIONS]
    found = match(
        encode_images(clip, [image]),
        encode_texts(clip, captions),
        logit_scale=clip.logit_scale,
        logit_bias=clip.logit_bias,
    )
    probabilities = found.probabilities[0].numpy()
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 3.6))
    left.imshow(image)
    left.set_axis_off()
    places = range(len(captions))
    right.barh(places, 100 * probabilities, color=list(CAPTIONS.values()))
    right.set_yticks(places, list(CAPTIONS))
    right.invert_yaxis()
    right.set_xlim(0, 100)
    right.set_xlabel("probability that CLIP gives each caption, %")
    for place, share in zip(places, probabilities, strict=True):
        right.text(100 * share + 1, place, f"{100 * share:.0f}", va="center")
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


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

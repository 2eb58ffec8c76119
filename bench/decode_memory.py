"""Measures the service's memory under the worst images it accepts, by its number of decoding threads.

Each run starts the service in its own process. It sends images of every kind at the limits on pixels and
bytes, more of them at once than there are threads, and reads the peak resident memory. The bound is the
resident memory before, plus the decoding budget, plus a fifth, plus what glibc keeps for each thread.
`--formats` instead measures how many bytes per pixel decoding takes for each file type. The numbers in
models/images/decode.py are upper bounds of these figures.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.memory import peak_mib, read_peak, start_peak
from bench.options import option, parse
from bench.report import heading, note
from bench.servers import running, sds_clip
from sds_clip.models.images.decode import ImageLimits, decode_file, decoding_size_bytes, open_image
from sds_clip.models.machine import usable_cores
from sds_clip.models.markdown import markdown_table

BUDGET_BYTES = 2 * 2**30
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 20 * 2**20
FIFTH = 1.2
SETTLE_S = 60.0
MIB = 2**20
ARENA_BYTES = 10 * MIB
"""What glibc keeps for a thread: `malloc_trim` does not shrink the top of a thread's own arena."""


@dataclass(frozen=True)
class Memory:
    """The service's resident memory, in bytes."""

    threads: int
    base: int
    budget: int
    peak: int
    after: int
    settled_s: float
    """Time until it held no more than `rest`; a minute at most."""
    answers: dict[int, int]
    """Number of answers by status."""

    @property
    def bound(self) -> int:
        """The most that it may hold while it decodes."""
        return int(FIFTH * (self.base + self.budget)) + self.threads * ARENA_BYTES

    @property
    def rest(self) -> int:
        """The most that it may hold when all is decoded."""
        return _rest(self.base, self.threads)

    @property
    def met(self) -> bool:
        """Whether the peak stayed within the bound and the memory was returned."""
        return self.peak <= self.bound and self.after <= self.rest


def _rest(base: int, threads: int) -> int:
    return int(1.1 * base) + threads * ARENA_BYTES


def worst_images(pixels: int = MAX_PIXELS, file_bytes: int = MAX_FILE_BYTES) -> Iterator[tuple[str, bytes]]:
    """Images of each kind with this many pixels, and some as large as a file may be."""
    side = int(pixels**0.5)
    turned = Image.Exif()
    turned[0x0112] = 6
    exif = turned.tobytes()
    yield "JPEG", _flat("RGB", side, "JPEG")
    yield "JPEG, grey", _flat("L", side, "JPEG")
    yield "JPEG, turned", _flat("RGB", side, "JPEG", exif=exif)
    yield "JPEG, CMYK", _flat("CMYK", side, "JPEG", exif=exif)
    yield "JPEG, progressive", _flat("RGB", side, "JPEG", progressive=True, subsampling=0, exif=exif)
    yield "JPEG, progressive CMYK", _flat("CMYK", side, "JPEG", progressive=True, subsampling=0)
    yield "PNG", _flat("RGB", side, "PNG", compress_level=1)
    yield "PNG, turned", _flat("RGBA", side, "PNG", compress_level=1, exif=exif)
    yield "PNG, palette", _flat("P", side, "PNG", transparency=0)
    yield "PNG, 16-bit grey", _png_of_zeros(side, bits=16, colour=0)
    yield "PNG, 16-bit RGBA, interlaced", _png_of_zeros(side, bits=16, colour=6, interlaced=True)
    yield "WebP, lossless", _flat("RGBA", side, "WEBP", lossless=True, exif=exif)
    yield "WebP, lossy", _flat("RGBA", side, "WEBP", quality=1, method=0)
    yield "WebP, animated", _animated("RGBA", side, "WEBP", lossless=True)
    yield "GIF, animated", _animated("P", side, "GIF", disposal=3, transparency=0)
    # Incompressible: a PNG then takes 3 bytes a pixel, far from the limit on pixels.
    noisy = int((0.97 * file_bytes / 3) ** 0.5)
    yield "PNG, noise", _noise(noisy, "PNG", compress_level=0)
    yield "WebP, noise", _noise(noisy, "WEBP", lossless=True, quality=0, method=0)


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _flat(mode: str, side: int, format: str, **options: object) -> bytes:
    return _saved(Image.new(mode, (side, side)), format, **options)


def _noise(side: int, format: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return _saved(Image.fromarray(pixels), format, **options)


def _animated(mode: str, side: int, format: str, **options: object) -> bytes:
    second = Image.new(mode, (side, side), 1 if mode == "P" else None)
    return _flat(mode, side, format, save_all=True, append_images=[second], **options)


def _png_of_zeros(side: int, *, bits: int, colour: int, interlaced: bool = False) -> bytes:
    """Kinds of PNG that Pillow cannot write."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    adam7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = adam7 if interlaced else ((0, 0, 1, 1),)
    compressor = zlib.compressobj(1)
    data = []
    for left, top, across, down in passes:
        row = bytes(1 + len(range(left, side, across)) * bits * channels // 8)
        data += [compressor.compress(row) for _ in range(top, side, down)]
    header = struct.pack(">LLBBBBB", side, side, bits, colour, 0, 0, interlaced)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join([*data, compressor.flush()])), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def measure(images: list[bytes], *, threads: int, budget_bytes: int, model: str, cache: Path) -> Memory:
    """Start the service, send every image once more than it has threads, and read its memory."""
    settings = {
        "SDS_CLIP_THREADS": str(threads),
        "OMP_THREAD_LIMIT": str(usable_cores()),  # the model's threads are no more than the cores
        "SDS_CLIP_MAX_DECODE_BYTES": str(budget_bytes),
        "SDS_CLIP_DEADLINE_S": "600",
    }
    server = sds_clip("sds-clip", "serve", "--model", model)
    with running(server, cache, **settings) as process, ThreadPoolExecutor(threads + 2) as clients:

        def send(image: bytes) -> int:
            body = json.dumps({"images": [base64.b64encode(image).decode()]})
            return process.post("/embed", body, timeout_s=900).status_code

        for _ in range(3):
            list(clients.map(send, [_flat("RGB", 64, "PNG")] * (threads + 2)))
        base = process.resident_bytes()
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # resets the peak to what is resident now
        answers = Counter(clients.map(send, [image for image in images for _ in range(threads + 1)]))
        peak = int(peak_mib(process.pid) * MIB)
        ended_at = time.monotonic()
        rest = _rest(base, threads)
        while (waited_s := time.monotonic() - ended_at) < SETTLE_S and process.resident_bytes() > rest:
            time.sleep(0.5)
        return Memory(threads, base, budget_bytes, peak, process.resident_bytes(), waited_s, dict(answers))


def formats(pixels: int) -> str:
    """By kind, the bytes per pixel that decoding takes besides the file, and what is assumed."""
    cpu = torch.device("cpu")
    rows = []
    for name, data in worst_images(pixels):
        # A JPEG also at the smaller sizes at which serving may decode it.
        for scale in (1, 2, 4, 8) if name.startswith("JPEG") else (1,):
            note(f"{name}, 1/{scale}")
            file = open_image(data, ImageLimits(), least_side=int(pixels**0.5) // scale)
            before_mib = start_peak(cpu)
            counted = decoding_size_bytes(file, max_side=224)
            decode_file(file).resize((224, 224), Image.Resampling.BICUBIC)
            taken = MIB * (read_peak(cpu) - before_mib)
            size = file.width * file.height
            rows.append(
                [name, f"1/{scale}", f"{len(data) / MIB:.1f}", f"{taken / size:.2f}", f"{counted / size:.2f}"]
            )
    return markdown_table(("kind", "size", "file MiB", "bytes a pixel", "counted"), rows)


def table(found: Sequence[Memory]) -> str:
    rows = [
        [
            each.threads,
            *(f"{size / MIB:.0f}" for size in (each.base, each.budget, each.bound, each.peak, each.after)),
            f"{each.settled_s:.1f}",
            ", ".join(f"{number} x {status}" for status, number in each.answers.items()),
        ]
        for each in found
    ]
    header = ("threads", "base MiB", "budget", "bound", "peak", "after", "settled s", "answers")
    return markdown_table(header, rows, text=(7,))


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    formats: bool = option(False, "Measure instead how much memory decoding takes for each file type.")
    threads: Sequence[int] = option((2, 4, 16), "Numbers of decoding threads.", kind=int, nargs="+")
    budget_mib: int = option(BUDGET_BYTES // MIB, "Budget for decoding.")
    pixels: int = option(MAX_PIXELS, "Number of pixels of an image.")
    model: str = option("demo", "Model of the service.")


def main(arguments: list[str] | None = None) -> int:
    """The exit status says whether all are within their bounds."""
    plan = parse(Plan, "bench.decode_memory", __doc__, arguments)
    print(heading("bench.decode_memory", arguments) + "\n")
    if plan.formats:
        print(formats(plan.pixels))
        return 0
    images = [data for _, data in worst_images(plan.pixels)]
    found = []
    with tempfile.TemporaryDirectory() as cache:
        for threads in plan.threads:
            note(f"{threads} threads")
            budget = plan.budget_mib * MIB
            found.append(
                measure(images, threads=threads, budget_bytes=budget, model=plan.model, cache=Path(cache))
            )
    met = all(memory.met for memory in found)
    print(f"{table(found)}\n\n{'met' if met else 'not met'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

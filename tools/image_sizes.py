"""Say how large the images' packages are, with torch from PyPI or INDEX: `python -m tools.image_sizes [INDEX]`.

Of each wheel only the end is fetched, where the sizes of its files are listed, so this takes a minute and no gigabytes.
An image also has its base, our own code with the demo's weights, and the bytecode that pip compiles.
"""

import argparse
import io
import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

LOCKS = Path(__file__).parents[1] / "locks"
IMAGES = ("api", "worker")
TORCH = ("-r", str(LOCKS / "torch.txt"))
SHOWN = 12
_END = 2**16
"""How much is fetched first. The list of a wheel with many files is longer."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", nargs="?", default="https://pypi.org/simple", metavar="INDEX")
    torch = resolve("--index-url", parser.parse_args().index, *TORCH)
    for image in IMAGES:
        # What the lock names replaces what came with torch.
        wheels = torch | resolve("--require-hashes", "--no-deps", "-r", str(LOCKS / f"{image}.txt"))
        with ThreadPoolExecutor() as pool:
            sizes = dict(zip(wheels, pool.map(unpacked_bytes, wheels.values()), strict=True))
        print(f"{image}: {sum(sizes.values()) / 1e9:.2f} GB in {len(sizes)} packages. The largest:")
        for name in sorted(sizes, key=sizes.__getitem__, reverse=True)[:SHOWN]:
            print(f"{sizes[name] / 1e6:10.1f} MB  {unquote(wheels[name].rpartition('/')[2])}")


def resolve(*arguments: str) -> dict[str, str]:
    """The wheels that pip would install into an empty environment: their addresses by the package's name."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [*command, "--only-binary", ":all:", "--report", "-", *arguments], stdout=subprocess.PIPE, check=True
    )
    return {
        each["metadata"]["name"].lower(): each["download_info"]["url"]
        for each in json.loads(done.stdout)["install"]
    }


def unpacked_bytes(url: str) -> int:
    """The size of the unpacked files of a wheel."""
    if url.startswith("file://"):
        return _total(unquote(urlsplit(url).path))
    end = _fetch(url, _END)
    try:
        return _total(io.BytesIO(end))
    except zipfile.BadZipFile:
        return _total(io.BytesIO(_fetch(url, 64 * _END)))


def _total(file: str | io.BytesIO) -> int:
    with zipfile.ZipFile(file) as wheel:
        return sum(entry.file_size for entry in wheel.infolist())


def _fetch(url: str, last_bytes: int) -> bytes:
    with urlopen(Request(url, headers={"Range": f"bytes=-{last_bytes}"}), timeout=60) as answer:
        content: bytes = answer.read()
    return content


if __name__ == "__main__":
    main()

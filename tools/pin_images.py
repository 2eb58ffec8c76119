"""Write the digests of base images behind their tags, in the Dockerfiles and Compose files: `make pin-images`.

A tag may be moved to other content, and a digest cannot. Docker must reach the images' registry. To take newer images,
change the tag, remove the digest, and run this again.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

FILES = (
    "docker/api.Dockerfile",
    "docker/embedded.Dockerfile",
    "docker/worker.Dockerfile",
    "docker-compose.yml",
    "docker-compose.monitoring.yml",
)
# The first lines of stages, and services whose image is not built here.
_IMAGE = re.compile(
    r"^(FROM|    image:) (?P<image>[\w.:/-]+:[\w.-]+)(?P<digest>@sha256:[0-9a-f]{64})?", re.MULTILINE
)


def digest(image: str) -> str:
    """The digest of an image in its registry, as `sha256:...`. Raises SystemExit if it cannot be pulled."""
    for command in (["docker", "pull", "--quiet", image], _inspect(image)):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    found: str = done.stdout.strip().rpartition("@")[2]
    return found


def pin(text: str, digests: dict[str, str]) -> str:
    """The text with the digest of each image that has none."""
    return _IMAGE.sub(
        lambda found: found[0] if found["digest"] else f"{found[0]}@{digests[found['image']]}", text
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--root", type=Path, default=Path(), help="Folder that holds the files.")
    files = [parser.parse_args().root / name for name in FILES]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    unpinned = {
        found["image"] for text in texts.values() for found in _IMAGE.finditer(text) if not found["digest"]
    }
    digests = {image: digest(image) for image in sorted(unpinned)}
    for file, text in texts.items():
        file.write_text(pin(text, digests), encoding="utf-8")
    for image, found in digests.items():
        print(f"{image}@{found}")


def _inspect(image: str) -> list[str]:
    return ["docker", "inspect", "--format", "{{index .RepoDigests 0}}", image]


if __name__ == "__main__":
    main()

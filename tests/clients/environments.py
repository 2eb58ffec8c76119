"""Environments that have other projects' packages, and not this one."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_with(lock: str) -> Path:
    """The interpreter of an environment with the packages of a file in locks/, made once for each state of it."""
    file = ROOT / "locks" / lock
    name = f"{file.stem}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    folder = ROOT / ".cache" / name
    found = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [found, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", file]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return found

"""Samples are counted for the innermost part that a frame belongs to."""

import os
import shlex
from pathlib import Path

import pytest

from bench.edge import Plan, by_part, part_of, sampled

LOOP = "run (uvicorn/server.py:75);run_until_complete (uvloop/loop.pyx:1518)"
ENCODE = "_in_chunks (app/serving/forward.py:150);encode_images (models/clip/mixed.py:77);linear (torch/nn/linear.py:1)"


def test_innermost_frame_of_a_part_decides() -> None:
    assert part_of(ENCODE.split(";")) == "forward pass"
    assert part_of([*LOOP.split(";"), "read (app/bodies.py:55)"]) == "JSON and its validation"
    assert part_of(LOOP.split(";")) in {"HTTP", "event loop"}
    assert part_of(["wait (threading.py:1)"]) == "other"


def test_counts_become_seconds() -> None:
    idle = "run (threading.py:982);_worker (concurrent/futures/thread.py:81)"
    stacks = f"{idle} 50\n{ENCODE} 30\n{LOOP};image_bytes (app/images.py:50) 10\n{ENCODE} 20"
    assert by_part(stacks, rate=100) == {"forward pass": 0.5, "base64 to bytes": 0.1}


def py_spy(folder: Path, says: str) -> Plan:
    """A program that is called as py-spy, says so, and writes a stack when it is interrupted."""
    program = folder / "py-spy"
    program.write_text(
        f"#!/bin/sh\necho {shlex.quote(says)}\n"
        'for last; do :; done\ntrap "echo read 7 > $last; exit" INT\nwhile :; do sleep 0.05; done\n'
    )
    program.chmod(0o755)
    return Plan(py_spy=str(program))


def test_stacks_are_there_when_the_block_ends(tmp_path: Path) -> None:
    with sampled(py_spy(tmp_path, "Sampling process 100 times a second."), os.getpid(), tmp_path / "stacks"):
        pass
    assert (tmp_path / "stacks").read_text() == "read 7\n"


def test_samples_that_py_spy_took_too_late_make_no_table(tmp_path: Path) -> None:
    said = "1.21s behind in sampling, results may be inaccurate. Try reducing the sampling rate."
    with (
        pytest.raises(SystemExit, match=r"py-spy was 1\.21s behind in sampling, .* a lower --rate than 100"),
        sampled(py_spy(tmp_path, said), os.getpid(), tmp_path / "stacks"),
    ):
        pass

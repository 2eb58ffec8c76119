"""The points at which the harness has a process die are there in the product, and only the harness puts them in."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.faults.crash_points import POINTS, REACHED, environment


@pytest.mark.parametrize("name", POINTS)
def test_process_has_the_point_where_the_harness_starts_it(name: str, tmp_path: Path) -> None:
    point = POINTS[name]
    program = f"import {point.module} as module; print(hasattr(module.{point.function}, '__wrapped__'))"
    with_point = {"PATH": "/usr/bin:/bin", **environment(tmp_path)}
    without = {"PATH": "/usr/bin:/bin"}
    found = [
        subprocess.run(
            [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        for env in (with_point, without)
    ]
    assert found == ["True", "False"]


def test_process_dies_at_the_visit_that_was_armed(tmp_path: Path) -> None:
    (tmp_path / "after-rename").write_text("2")
    program = (
        "from bench.faults.crash_points import reach\n"
        "reach('after-rename'); print('once', flush=True); reach('after-rename'); print('twice', flush=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert (ended.returncode, ended.stdout) == (-9, "once\n")
    assert [file.name for file in tmp_path.iterdir()] == [f"after-rename{REACHED}"]

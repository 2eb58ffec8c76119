"""The points at which the harness has a process die are there in the product, and only the harness puts them in."""

import subprocess
import sys
from pathlib import Path

from bench.faults.crash_points import POINTS, REACHED, environment

PROGRAM = "\n".join(
    f"import {point.module}; print(hasattr({point.module}.{point.function}, '__wrapped__'))"
    for point in POINTS.values()
)


def test_process_has_the_points_where_the_harness_starts_it(tmp_path: Path) -> None:
    with_points = {"PATH": "/usr/bin:/bin", **environment(tmp_path)}
    without = {"PATH": "/usr/bin:/bin"}
    found = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.split()
        for env in (with_points, without)
    ]
    assert found == [["True"] * len(POINTS), ["False"] * len(POINTS)]


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

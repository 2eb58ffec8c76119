"""Crash points: places where a process dies on demand, wrapped around the product's functions on import.

`environment` gives a process these points. A file named after a point in its folder arms that point; the
number in it says which visit counts. The process that reaches it renames the file to NAME.reached, which only
one process can do, syncs that to disk, and ends itself by SIGKILL.
"""

import contextlib
import functools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

FOLDER, DEVICE = "SDS_CLIP_CRASH_POINTS", "SDS_CLIP_FAULTY_DEVICE"
REACHED = ".reached"

_visits: Counter[str] = Counter()


@dataclass(frozen=True)
class Point:
    """A place at a call of a module's function: before it, after it, or after it returned a result."""

    module: str
    function: str
    when: Literal["before", "after", "result"]


POINTS: Mapping[str, Point] = {
    # The service: a job's row is committed, no wake-up is sent yet.
    "after-commit": Point("sds_clip.app.store.jobs", "JobQueries.submit", "after"),
    # A slot: a job is claimed, no process has it yet.
    "after-claim": Point("sds_clip.app.store.leases", "JobLeases.claim", "result"),
    # A job: a step is done, neither reported nor saved.
    "mid-step": Point("sds_clip.worker.training_progress", "TrainingProgress.on_step", "before"),
    # A job: a checkpoint's tensors are written, their description is not.
    "mid-checkpoint": Point("sds_clip.models.training.checkpoint", "save_file", "after"),
    # A job: a version's folder has its final name, the version has no row yet.
    "after-rename": Point("sds_clip.app.registry.publish", "publish", "after"),
    # The service: a version is loaded, not in service yet.
    "mid-swap": Point("sds_clip.app.serving.served_models", "ServedModels.replace", "before"),
    # A job, or a worker's test of itself: the device is about to be used. It fails instead, as long as the file of
    # its name is there.
    DEVICE: Point("sds_clip.models.clip.precision", "choose_device", "before"),
}


def environment(folder: Path, device: str = "") -> dict[str, str]:
    """Environment variables that give a process the points; files in the folder arm them. `device` names its device."""
    here = Path(__file__).parent
    paths = [here / "inject", here.parents[1], *filter(None, [os.environ.get("PYTHONPATH")])]
    return {FOLDER: str(folder), DEVICE: device, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def install() -> None:
    """Wrap each point's function when its module is imported, if the environment names a folder."""
    if FOLDER in os.environ:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds modules that have points, and wraps their functions after execution."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        points = {key: point for key, point in POINTS.items() if point.module == name}
        spec = PathFinder.find_spec(name, path, target) if points else None
        if spec is None or spec.loader is None:
            return None
        run: Callable[[ModuleType], None] = spec.loader.exec_module

        def run_and_wrap(module: ModuleType) -> None:
            run(module)
            for key, point in points.items():
                _wrap(module, key, point)

        spec.loader.exec_module = run_and_wrap  # type: ignore[method-assign]
        return spec


def _wrap(module: ModuleType, key: str, point: Point) -> None:
    """Raises AttributeError if the product no longer has the function."""
    path, _, name = point.function.rpartition(".")
    owner = functools.reduce(getattr, filter(None, [path]), module)
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if point.when == "before":
            reach(key)
        result = function(*args, **kwargs)
        if point.when == "after" or (point.when == "result" and result is not None):
            reach(key)
        return result

    setattr(owner, name, wrapped)


def reach(key: str) -> None:
    """Die here if the point is armed for this visit, or fail if it is a broken device."""
    if key == DEVICE:
        if (name := os.environ.get(DEVICE)) and (Path(os.environ[FOLDER]) / name).exists():
            raise RuntimeError("CUDA error: unspecified launch failure")
        return
    armed = Path(os.environ[FOLDER]) / key
    with contextlib.suppress(FileNotFoundError):  # not armed, or another process died here
        visit = int(armed.read_text(encoding="utf-8") or 1)
        _visits[key] += 1
        if _visits[key] >= visit:
            armed.rename(f"{armed}{REACHED}")
            descriptor = os.open(armed.parent, os.O_RDONLY)
            os.fsync(descriptor)
            os.kill(os.getpid(), signal.SIGKILL)

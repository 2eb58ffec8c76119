"""The checkpoints of a job, as its attempts have left them in its folder."""

from collections.abc import Iterator
from pathlib import Path

from sds_clip.models.run_files import CHECKPOINTS, DESCRIPTION_FILE, checkpoints_in


def attempts_in(job_folder: Path) -> list[Path]:
    """The folders of a job's attempts, the first one first."""
    attempts = (folder for folder in job_folder.glob("*") if folder.name.isdigit())
    return sorted(attempts, key=lambda folder: int(folder.name))


def checkpoint_folders(job_folder: Path) -> list[tuple[int, Path]]:
    """The step and the folder of every checkpoint, those of the first attempt first."""
    runs = (attempt / "run" / CHECKPOINTS for attempt in attempts_in(job_folder))
    return [found for run in runs for found in checkpoints_in(run)]


def checkpoints_of(job_folder: Path) -> Iterator[tuple[int, float, int]]:
    """Yield the step, the time and the size in bytes of each checkpoint, in the order of their steps.

    A checkpoint's files appear together once they are complete. A later attempt has links to those of the one before.
    """
    for step, folder in sorted(dict(checkpoint_folders(job_folder)).items()):
        try:
            written_at = (folder / DESCRIPTION_FILE).stat().st_mtime
            size_bytes = sum(file.stat().st_size for file in folder.iterdir())
        except FileNotFoundError:  # removed meanwhile
            continue
        yield step, written_at, size_bytes

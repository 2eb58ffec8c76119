"""`sds-clip doctor` shows installed versions and the machine's capabilities, and tests the model."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sds_clip.database import EMBEDDED, open_database
from sds_clip.extras import missing_packages, require_extra
from sds_clip.options import command, json_option, load_model, model_options, read_settings
from sds_clip.table import printable, say, table

if TYPE_CHECKING:
    from sds_clip.app.settings import Settings
    from sds_clip.models.clip.model import Clip

_PACKAGES = (
    "torch",
    "open_clip_torch",
    "torchvision",
    "transformers",
    "fastapi",
    "uvicorn",
    "pillow",
    "safetensors",
)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    status: Literal["ok", "broken", ""]
    detail: str


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip doctor
sds-clip doctor --model local-dir:my-clip --json
""",
)
@model_options
@json_option
def doctor(as_json: bool, **chosen: str | None) -> int:
    """Check the installation.

    This command shows the installed versions, the processor's features, cores and threads, the GPUs, and what
    --device auto and --precision auto mean on this machine, and whether the data folder is the one of the database, if
    there is one. Then the model is loaded and encodes one image and one
    text. The exit code is 1 if a check fails.
    """
    settings = read_settings()
    findings = [
        *_software(),
        *_machine(),
        _check("data folder", lambda: _data_folder(settings)),
        *_model(lambda: load_model(settings, **chosen)),
    ]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(table(["", "", ""], [[each.name, each.status, each.detail] for each in findings]).lstrip("\n"))
    broken = [finding.name for finding in findings if finding.status == "broken"]
    if broken:
        say(f"These checks failed: {', '.join(broken)}.")
    else:
        say(f"All checks passed. Start the service: sds-clip {'serve' if missing_packages('jobs') else 'up'}")
    return 1 if broken else 0


def _software() -> Iterator[Finding]:
    yield _package("sds-clip")
    yield Finding("python", "", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from map(_package, _PACKAGES)


def _package(name: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version  # slower than all of `--help`

    try:
        return Finding(name, "", version(name))
    except PackageNotFoundError:
        return Finding(name, "broken", "is not installed; install sds-clip again")


def _machine() -> Iterator[Finding]:
    import torch

    from sds_clip.models.machine import usable_cores

    flags = set(_CPU_INFO.read_text().split()) if _CPU_INFO.is_file() else set()
    found = " ".join(flag for flag in _CPU_FLAGS if flag in flags) or "unknown"
    yield Finding("cpu features", "", f"{found} (torch uses {torch.backends.cpu.get_cpu_capability()})")
    yield Finding(
        "cores", "", f"{usable_cores()} usable of {os.cpu_count()}; torch threads {torch.get_num_threads()}"
    )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("cuda", "", ", ".join(names) or "none")
    yield _check("auto picks", _auto)


def _auto() -> str:
    from sds_clip.models.clip.precision import choose_device, choose_precision

    device = choose_device("auto")
    return f"{device}, {choose_precision('auto', device)}"


def _model(load_clip: Callable[[], Clip]) -> Iterator[Finding]:
    loaded: list[Clip] = []

    def load() -> str:
        clip = load_clip()
        loaded.append(clip)
        size = f"{clip.architecture}, {clip.parameters:,} parameters"
        return f"{clip.reference}: {size}, version {clip.version[:12]}"

    yield _check("weights", load)
    for clip in loaded:
        yield Finding("runs on", "", f"{clip.device}, {clip.precision}")
        yield _check("forward", partial(_forward, clip))


def _forward(clip: Clip) -> str:
    import torch
    from PIL import Image

    image = clip.preprocess(Image.new("RGB", clip.image_size, (200, 30, 30)))[None]
    tokens = clip.tokenizer(["a red square"])
    # Time the second run; the first includes set-up.
    for _ in range(2):
        started_at = time.perf_counter()
        features = torch.cat([clip.encode_image(image), clip.encode_text(tokens)]).cpu()
        took_ms = 1000 * (time.perf_counter() - started_at)
    if not bool(torch.isfinite(features).all()):
        raise RuntimeError("the features are not finite")
    return f"one image and one text in {took_ms:.0f} ms, {features.shape[1]} dimensions"


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir.absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PermissionError(f"{folder} cannot be written; set SDS_CLIP_DATA_DIR to another folder")
    if settings.database_url is None and not (folder / EMBEDDED).exists():
        return str(folder)
    require_extra("jobs", "The database")
    with open_database(settings):
        pass
    return f"{folder}, which belongs to the database"


def _check(name: str, check: Callable[[], str]) -> Finding:
    # Any exception is itself the finding.
    try:
        return Finding(name, "ok", check())
    except Exception as error:
        return Finding(name, "broken", printable(" ".join(str(error).split()) or type(error).__name__))

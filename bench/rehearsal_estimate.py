"""What a rehearsed run is expected to take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sds_clip.commands.compare_estimate import STEP_OVERHEAD, sustained_rate
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.precision import DTYPES, choose_device, choose_precision
from sds_clip.models.teacher.folder import find_family
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.cost import (
    bytes_beside,
    clip_costs,
    denoiser_cost,
    mapper_parameters,
    peak_bytes,
    step_operations,
    vae_cost,
)


def estimate(config: FinetuneConfig, teacher: Path) -> tuple[float, float]:
    """Return the bytes at the peak, with the program itself, and the seconds of a step."""
    place = choose_device(config.device)
    dtype = DTYPES[choose_precision(config.precision, place)]
    clip = load_clip(config.base, device="cpu", precision="float32")
    pair, _, _, trained = clip_costs(clip, config)
    family = find_family(teacher, teacher.name)
    denoiser = denoiser_cost(teacher, family)
    vae = vae_cost(teacher, family) if config.needs_vae else None
    other, mapper = bytes_beside(teacher, family, dtype, vae), mapper_parameters(clip, teacher, family)
    peak = peak_bytes(config, pair, denoiser, trained=trained, other_bytes=other, mapper=mapper)
    step_s = STEP_OVERHEAD * step_operations(config, pair, denoiser) / sustained_rate(place, dtype)
    return peak + _program_bytes(config.uses_teacher), step_s


def _program_bytes(has_teacher: bool) -> int:
    """The memory of a process that has imported what a run needs."""
    imports = "import sds_clip.models.training.run"
    if has_teacher:
        imports += "; from diffusers import AutoencoderKL; from transformers import CLIPTextModel"
    code = f"{imports}; import psutil; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run((sys.executable, "-c", code), capture_output=True, check=True).stdout)

"""What a rehearsed run is expected to take."""

from __future__ import annotations

import subprocess
import sys

from sds_clip.commands.compare_estimate import STEP_OVERHEAD, needs_of, sustained_rate
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.precision import DTYPES, choose_device, choose_precision
from sds_clip.models.training.config import FinetuneConfig


def estimate(config: FinetuneConfig) -> tuple[float, float]:
    """Return the bytes at the peak, with the program itself, and the seconds of a step.

    The pairs of a step are new to it. So the teacher encodes their images in it, and scores their captions, if it is
    asked to.
    """
    place = choose_device(config.device)
    dtype = DTYPES[choose_precision(config.precision, place)]
    needs = needs_of(config, load_clip(config.base, device="cpu", precision="float32"))
    once = 0.0 if config.uses_sds else config.teacher_batch_size * needs.start
    step_s = STEP_OVERHEAD * (needs.step + once) / sustained_rate(place, dtype)
    return needs.peak + _program_bytes(config.uses_teacher), step_s


def _program_bytes(has_teacher: bool) -> int:
    """The memory of a process that has imported what a run needs."""
    imports = "import sds_clip.models.training.run"
    if has_teacher:
        imports += "; from diffusers import AutoencoderKL; from transformers import CLIPTextModel"
    code = f"{imports}; import psutil; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run((sys.executable, "-c", code), capture_output=True, check=True).stdout)

"""Real commands that are asked to stop, in every stage, while a call that never returns keeps the stage busy."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from sds_clip.cli import main
from tests.sds_clip.test_finetune import delta_bytes
from tests.stalls import environment
from tests.teachers import save_sd_teacher
from tests.training import save_coco
from tests.worker.sets import save_winoground
from tests.worker.waiting import until

LONG = pytest.mark.long
TERM, INT = signal.SIGTERM, signal.SIGINT
DEFAULT = {TERM: -TERM, INT: 128 + INT}
"""The exit codes where nothing has to be saved: SIGTERM ends the process by itself."""
ORDERLY = {TERM: 128 + TERM, INT: 128 + INT}

BEFORE_THE_RUN = {
    "loading the base": "sds_clip.models.training.parts:load_clip",
    "loading the teacher": "sds_clip.models.training.parts:load_teacher",
    "checking the data": "sds_clip.models.data.check:_check:3",
}
IN_THE_RUN = {
    "setting up": ("sds_clip.models.training.run:with_negatives", None),
    "fitting the mapper": ("sds_clip.models.teacher.teacher:Teacher.encode_image:2", 0),
    "decoding": ("sds_clip.models.data.batches:Loader._load", 0),
    "embedding captions": ("sds_clip.models.teacher.teacher:Teacher.encode_captions:3", 2),
    "a step": ("sds_clip.models.training.trainer:Trainer.gradients:3", 2),
    "validating": ("sds_clip.models.training.run:validate:2", 4),
    "writing the report": ("sds_clip.models.training.run:write_run_report", 4),
    "writing the delta": ("sds_clip.models.training.run:save_delta", 4),
}
"""Where a run is busy, and how many steps it has done by then."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stops")
    save_coco(folder / "coco")
    save_coco(folder / "held-out", 8, seed=1)
    save_sd_teacher(folder / "teacher")
    save_winoground(folder / "winoground", 8)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tiny_folder: Path) -> list[str]:
    """A short run with every stage, as options."""
    return [
        *("finetune", "--base", f"local-dir:{tiny_folder}", "--teacher", str(folder / "teacher")),
        *("--data", f"{folder}/coco/captions.json", "--val", f"{folder}/held-out/captions.json"),
        *("--val-images", str(folder / "held-out"), "--steps", "4", "--batch-size", "8", "--lr", "1e-3"),
        *[
            "--warmup-steps",
            "1",
            "--save-every",
            "1000",
            "--log-every",
            "1",
            "--workers",
            "1",
            "--device",
            "cpu",
        ],
    ]


@pytest.fixture(scope="module")
def straight(run: list[str], folder: Path) -> dict[str, bytes]:
    """The delta of the run that nobody stops."""
    assert main([*run, "--out", str(folder / "straight")]) == 0
    return delta_bytes(folder / "straight")


def stopped(arguments: list[str], place: str, number: signal.Signals, reached: Path) -> tuple[int, str]:
    """The exit code and the errors of a command that gets a signal when it is stuck at a place."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sds_clip.stalled_command", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment(place, reached) | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    try:
        until(lambda: reached.exists() or process.poll() is not None)
        asked_at = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        print(f"{place} ended {time.monotonic() - asked_at:.1f} s after {number.name}")
    finally:
        process.kill()
    assert reached.exists(), errors
    return process.returncode, errors


@pytest.mark.parametrize("number", [pytest.param(TERM, marks=LONG), INT])
@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=() if "data" in stage else LONG) for stage in BEFORE_THE_RUN]
)
def test_a_run_that_loads_or_checks_what_it_needs_ends_when_it_is_told(
    stage: str, number: signal.Signals, run: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, errors = stopped([*run, "--out", str(out)], BEFORE_THE_RUN[stage], number, tmp_path / "reached")
    assert code == DEFAULT[number], errors
    assert not out.exists()


@pytest.mark.parametrize("number", [TERM, pytest.param(INT, marks=LONG)])
@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(stage, marks=() if stage in ("fitting the mapper", "a step") else LONG)
        for stage in IN_THE_RUN
    ],
)
def test_a_run_ends_in_any_stage_when_it_is_told_and_goes_on_to_the_same_bytes(
    stage: str, number: signal.Signals, run: list[str], straight: dict[str, bytes], tmp_path: Path
) -> None:
    out, (place, steps) = tmp_path / "out", IN_THE_RUN[stage]
    code, errors = stopped([*run, "--out", str(out)], place, number, tmp_path / "reached")
    assert code == ORDERLY[number], errors
    if steps is not None:
        assert f"The run stopped after step {steps}. The same command with --resume" in errors
    checkpoints = [kept.name for kept in out.glob("checkpoints/*")]
    assert checkpoints == ([f"step-{steps:08d}"] if steps else [])
    assert main([*run, "--resume", "--out", str(out)]) == 0
    assert delta_bytes(out) == straight
    assert len((out / "log.jsonl").read_text().splitlines()) == 5  # every step once, and the validation


@pytest.mark.long
def test_a_run_that_is_told_to_stop_while_it_writes_a_checkpoint_ends_with_that_whole(
    run: list[str], straight: dict[str, bytes], tmp_path: Path
) -> None:
    """The signal comes within the write, which then goes on: what it saves is worth more than the seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITE, *run, "--save-every", "2", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == ORDERLY[TERM], errors
    assert [kept.name for kept in tmp_path.glob("checkpoints/*")] == ["step-00000002"]
    assert main([*run, "--save-every", "2", "--resume", "--out", str(tmp_path)]) == 0
    assert delta_bytes(tmp_path)["delta.safetensors"] == straight["delta.safetensors"]


SLOW_WRITE = """
import os, signal, sys, time
from sds_clip.models.training import checkpoint
from sds_clip.cli import main
save = checkpoint.save_file
def slow(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(7)  # longer than a process that is stopped may compute
    save(*arguments)
checkpoint.save_file = slow
sys.exit(main(sys.argv[1:]))
"""


COMMANDS = {
    "evaluate, loading": ("evaluate", "sds_clip.models.checkpoints.load:load_clip"),
    "evaluate, checking images": ("evaluate", "sds_clip.models.evaluation.image_check:read_bytes"),
    "evaluate, encoding images": ("evaluate", "sds_clip.models.clip.model:Clip.encode_image"),
    "evaluate, encoding texts": ("evaluate", "sds_clip.models.clip.model:Clip.encode_text"),
    "evaluate, comparing": ("evaluate", "sds_clip.models.evaluation.evaluation:compare"),
    "evaluate, writing": ("evaluate", "sds_clip.models.evaluation.evaluation:write_report"),
    "evaluate, denoising": ("diffusion", "sds_clip.models.teacher.teacher:Teacher.noise_pred:2"),
    "embed, loading": ("embed", "sds_clip.models.checkpoints.load:load_clip"),
    "embed, reading": ("embed", "sds_clip.models.vectors.embed:read_image:2"),
    "embed, encoding": ("embed", "sds_clip.models.clip.model:Clip.encode_image"),
    "embed, writing": ("embed", "sds_clip.models.vectors.embed:write_vectors"),
    "compare, checking": ("compare", "sds_clip.models.data.batches:steps_per_epoch"),
    "compare, evaluating": ("compare", "sds_clip.models.clip.model:Clip.encode_image"),
    "compare, loading": ("compare", "sds_clip.models.training.parts:load_parts"),
    "compare, a step": ("compare", "sds_clip.models.training.trainer:Trainer.gradients:2"),
    "compare, the page": ("compare", "sds_clip.models.recipes.page:write_page"),
}


@pytest.mark.parametrize("number", [pytest.param(TERM, marks=LONG), INT])
@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=() if moment == "embed, reading" else LONG) for moment in COMMANDS]
)
def test_a_command_ends_at_any_moment_when_it_is_told(
    moment: str, number: signal.Signals, folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    name, place = COMMANDS[moment]
    model, out = f"local-dir:{tiny_folder}", str(tmp_path / "out")
    winoground = str(folder / "winoground")
    plan = {
        "base": model,
        "teacher": str(folder / "teacher"),
        "data": f"{folder}/coco/captions.json",
        "options": {"steps": 3, "batch_size": 4, "sds_batch_size": 4},
        "recipes": {"control": "clip", "sds-clip": "sds-clip"},
        "control": "control",
        "benchmarks": {"winoground": winoground},
        "primary": "winoground",
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    arguments = {
        "evaluate": ["evaluate", "winoground", "--model", model, "--baseline", model, "--data", winoground],
        "diffusion": [
            *("evaluate", "winoground", "--scorer", "diffusion", "--teacher", str(folder / "teacher")),
            *("--data", winoground),
        ],
        "embed": ["embed", str(folder / "coco"), "--model", model],
        "compare": ["compare", str(tmp_path / "plan.yaml")],
    }[name]
    out = f"{out}.npy" if name == "embed" else out
    code, errors = stopped([*arguments, "--device", "cpu", "--out", out], place, number, tmp_path / "reached")
    in_a_run = moment == "compare, a step"
    assert code == (ORDERLY if in_a_run else DEFAULT)[number], errors
    assert bool(re.search("after step 1. The same command", errors)) == in_a_run

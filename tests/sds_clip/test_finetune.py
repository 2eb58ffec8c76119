"""`sds-clip finetune`, killed and resumed, in processes of its own, and its options."""

import io
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
import yaml

from sds_clip.cli import main
from sds_clip.commands.finetune import finetune
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.options import Option
from tests.sds_clip.command_line import exit_code, start
from tests.sds_clip.transcript import test_transcript, without  # noqa: F401
from tests.teachers import save_sd_teacher
from tests.training import changed, gradients, save_coco, state_after

STEPS = 12
KILLS = int(os.environ.get("SDS_CLIP_KILLS") or random.SystemRandom().randrange(10**6))
"""The seed of where runs are killed: another one each time, and shown with a failure."""
OBJECTIVES: dict[str, list[str]] = {
    "sds-clip full": ["--objective", "sds-clip", "--gradient", "full", "--sds-batch-size", "5"],
    "sds-clip sds": ["--objective", "sds-clip", "--gradient", "sds", "--mapper-start", "ridge"],
    "condition": ["--objective", "condition", "--sds-batch-size", "5"],
    "noise-contrast": ["--objective", "noise-contrast", "--sds-batch-size", "4"],
    "score": ["--objective", "score", "--negatives", "swap", "--score-draws", "2"],
}
LONG = pytest.mark.long
STEPS_IN = """
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1])
found.Reload()
print([point.step for point in found.Scalars("loss")])
"""


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a short run is made of, as options."""
    folder = tmp_path_factory.mktemp("finetune")
    data = save_coco(folder / "coco")
    teacher = save_sd_teacher(folder / "teacher")
    return [
        *("--base", f"local-dir:{tiny_folder}", "--data", str(data), "--teacher", str(teacher)),
        *("--batch-size", "8", "--steps", str(STEPS), "--lr", "1e-3", "--warmup-steps", "2"),
        *("--device", "cpu", "--workers", "1", "--log-every", "1", "--save-every", "3"),
    ]


@pytest.fixture
def run(made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$RUN is a short run, and `coco` a copy of its data."""
    monkeypatch.setenv("RUN", shlex.join(made))
    save_coco(tmp_path / "coco")


without_diffusers, without_mlflow, without_pyarrow, without_tensorboard = map(
    without, ("diffusers", "mlflow", "pyarrow", "tensorboard")
)


def wait_for_step(process: "subprocess.Popen[str]", step: int) -> None:
    """Until a run says that it has done a step."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(f"the run ended before step {step}")


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def delta_bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((out / "delta").iterdir())}


@pytest.mark.parametrize(
    "objective", [pytest.param(each, marks=() if each == "sds-clip sds" else LONG) for each in OBJECTIVES]
)
def test_a_run_killed_at_a_random_step_and_resumed_ends_with_the_same_bytes(
    objective: str, made: list[str], tmp_path: Path
) -> None:
    options = [*made, *OBJECTIVES[objective]]
    killed = start("finetune", *options, "--out", str(tmp_path / "killed"))
    step = random.Random(f"{objective} {KILLS}").randrange(1, STEPS - 2)  # the first checkpoint is after 3
    print(f"killed after step {step}; SDS_CLIP_KILLS={KILLS} does it again")
    wait_for_step(killed, step)
    killed.kill()
    assert ended(killed)[0] == -signal.SIGKILL
    assert not (tmp_path / "killed" / "delta").exists()
    code, out, _ = ended(start("finetune", *options, "--out", str(tmp_path / "killed"), "--resume"))
    assert (code, out) == (0, f"local-dir:{tmp_path / 'killed' / 'delta'}\n")
    assert main(["finetune", *options, "--out", str(tmp_path / "straight")]) == 0
    assert delta_bytes(tmp_path / "killed") == delta_bytes(tmp_path / "straight")


@pytest.mark.long
def test_torchrun_starts_two_processes_that_train_as_one(made: list[str], tmp_path: Path) -> None:
    options = [
        *made,
        *("--gradient", "sds", "--sds-batch-size", "4", "--steps", "2", "--save-every", "1"),
        *("--precision", "float32", "--teacher-precision", "float32"),
    ]
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main(["finetune", *options, "--out", str(alone)]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*launcher, "-m", "sds_clip", "finetune", *options, "--out", str(both)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"local-dir:{both / 'delta'}\n"  # the main process alone speaks
    assert len((both / "log.jsonl").read_text().splitlines()) == 2
    expected, found = gradients(state_after(1, alone)), gradients(state_after(1, both))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_a_terminated_run_saves_a_checkpoint_says_so_and_resumes(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*made, "--objective", "clip", "--save-every", "1000", "--steps", "100", "--batch-size", "2"]
    process = start("finetune", *options, "--out", str(tmp_path / "out"))
    wait_for_step(process, 2)
    process.terminate()
    code, out, err = ended(process)
    assert (code, out) == (128 + signal.SIGTERM, "")
    stopped = re.search(r"after step (\d+)", err)
    assert stopped is not None
    assert "--resume" in err
    saved = [kept.name for kept in (tmp_path / "out" / "checkpoints").iterdir()]
    assert saved == [f"step-{int(stopped[1]):08d}"]
    assert main(["finetune", *options, "--out", str(tmp_path / "out")]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["finetune", *options, "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert main(["finetune", *options, "--out", str(tmp_path / "straight")]) == 0
    assert delta_bytes(tmp_path / "out") == delta_bytes(tmp_path / "straight")


def test_an_interrupt_before_the_first_step_ends_the_run_at_once(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checking the data can take long, and there is nothing to save yet."""

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the run went on")

    monkeypatch.setattr("sds_clip.models.training.parts.load_parts", interrupted)
    assert main(["finetune", *made, "--out", str(tmp_path / "out")]) == 130


def test_on_a_terminal_a_bar_takes_the_place_of_lines(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    options = ["--steps", "3", "--log-every", "2", "--ridge-images", "20", "--out", str(tmp_path / "out")]
    assert main(["finetune", *made, *options]) == 0
    shown = terminal.getvalue()
    assert re.search(r"fitting the mapper: 100%.* 20/20 .*it/s", shown)
    assert " 3/3 " in shown
    assert "clip=" in shown
    assert "step 2/3" not in shown


def test_elsewhere_the_fit_of_the_mapper_tells_how_fast_it_is(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sds_clip.progress._TOLD_EVERY_S", 0.0)
    assert main(["finetune", *made, "--steps", "1", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "fitting the mapper: 24 images\n" in said
    assert re.search(r"fitting the mapper: 16 of 24 images, [\d.]+ a second, \d+ s left\n", said)


@pytest.mark.long
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_vit_b_32_trains_from_coco_and_its_delta_is_256_kib(
    prediction_type: str, vit_b_32_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save_sd_teacher(tmp_path / "teacher", prediction_type=prediction_type)
    out = tmp_path / "out"
    options = [
        *("--base", f"local-dir:{vit_b_32_folder}", "--teacher", str(teacher), "--out", str(out)),
        *("--data", str(save_coco(tmp_path / "coco", 4)), "--steps", "3", "--batch-size", "2"),
        *("--device", "cpu", "--precision", "float32", "--save-every", "1000"),
    ]
    assert main(["finetune", *options]) == 0
    assert capsys.readouterr().out == f"local-dir:{out / 'delta'}\n"
    delta = read_delta(out / "delta")
    assert sum(value.numel() for value in delta.tensors.values()) == 65_536
    size = (out / "delta" / "delta.safetensors").stat().st_size
    assert 256 * 1024 < size < 270 * 1024
    tuned = load_clip(f"local-dir:{out / 'delta'}", device="cpu", precision="float32")
    assert tuned.version == delta.about.version
    shutil.rmtree(out / "checkpoints")


def test_the_command_line_comes_before_the_file_and_the_file_gives_the_run_again(
    made: list[str], tmp_path: Path
) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    assert main(["finetune", *made, "--steps", "2", "--lambda", "0.5", "--out", str(first)]) == 0
    saved = str(first / "config.yaml")
    assert yaml.safe_load((first / "config.yaml").read_text())["sds_weight"] == 0.5
    assert main(["finetune", "--config", saved, "--out", str(again)]) == 0
    assert delta_bytes(again) == delta_bytes(first)
    as_options = "".join(
        f"{name.replace('_', '-')}: {value}\n"
        for name, value in yaml.safe_load(Path(saved).read_text()).items()
        if value is not None
    )
    (tmp_path / "dashes.yaml").write_text(as_options)
    dashes = tmp_path / "dashes"
    assert main(["finetune", "--config", str(tmp_path / "dashes.yaml"), "--out", str(dashes)]) == 0
    assert (dashes / "config.yaml").read_text() == Path(saved).read_text()
    changes = ["--objective", "clip", "--epochs", "1", "--log-every", "3"]
    assert main(["finetune", "--config", saved, *changes, "--out", str(other)]) == 0
    assert (other / "checkpoints" / "step-00000003").is_dir()  # 24 samples, 8 a batch
    assert changed(other).keys() == changed(first).keys()


def test_help_shows_every_option_with_its_choices_and_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert exit_code(["finetune", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in FinetuneConfig.model_fields:
        spelled = "lambda" if name == "sds_weight" else name.replace("_", "-")
        assert re.search(rf"^  --{spelled}[ ,]", shown, re.MULTILINE)
    assert re.search(r"--objective \W?clip\Wsds-clip\Wcondition\Wnoise-contrast\Wscore\W", shown)
    assert re.search(r"--gradient \W?full\Wsds\W", shown)
    assert re.search(r"--max-bad-share [A-Z]+\s[^-]*\(default: 0\.0\)", shown)
    assert re.search(r"--no-activation-checkpointing\s.*\(default: no\)", shown, re.DOTALL)


def test_options_stand_in_the_section_of_the_help_where_one_looks_for_them() -> None:
    with click.Context(finetune) as context:
        section_of = {
            option.name: option.section
            for option in finetune.get_params(context)
            if isinstance(option, Option)
        }
    assert "" not in section_of.values()
    assert section_of["trainable"] == section_of["seed"] == "Model"
    assert section_of["max_bad_share"] == section_of["caption_key"] == "Data"
    assert section_of["precision"] == section_of["save_every"] == section_of["workers"] == "Machine and files"


@pytest.mark.long
def test_a_run_that_is_logged_to_tensorboard_is_resumed_in_the_same_folder(
    made: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    options = [*made, "--objective", "clip", "--log-to", "tensorboard", "--out", str(tmp_path)]
    killed = start("finetune", *options)
    wait_for_step(killed, 5)
    killed.kill()
    ended(killed)
    ran = start("finetune", *options, "--resume")
    assert ended(ran)[0] == 0

    found = subprocess.run(
        [sys.executable, "-c", STEPS_IN, tmp_path / "tensorboard"], capture_output=True, text=True
    )
    assert found.stdout.strip() == str([*range(1, STEPS + 1)])

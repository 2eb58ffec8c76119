"""`sds-clip reproduce` on a tiny CLIP and a tiny teacher in Stable Diffusion's shape: whole, killed, and refused."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from models.evaluation.estimate import estimate
from models.evaluation.report.words import NO_BREAK, p_value, points_interval
from models.training.influence import teacher_had_no_say
from tests.checkpoints import save_tiny_clip
from tests.sds_clip.command_line import exit_code
from tests.teachers import save_sd_teacher
from tests.training import save_coco
from tests.worker.sets import save_winoground

STEPS = 4
SIZES = ["--steps", str(STEPS), "--batch-size", "8", "--micro-batch-size", "4", "--sds-batch-size", "4"]


def save_coco_folder(folder: Path) -> Path:
    """Pictures in `images`, with captions for training, and for validation those of the first eight."""
    captions = save_coco(folder / "images")
    content = json.loads(captions.read_text())
    captions.rename(folder / "captions_train2017.json")
    few = {name: records[:8] for name, records in content.items()}
    (folder / "captions_val2017.json").write_text(json.dumps(few))
    return folder


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a short reproduction is made of, as options."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "more.yaml").write_text("warmup_steps: 1\nlr: 0.05\nlambda: 100\nlog-every: 1\nsave-every: 1\n")
    return [
        *("--base", f"local-dir:{tiny_folder}", "--teacher", str(save_sd_teacher(folder / "teacher"))),
        *("--coco", str(save_coco_folder(folder / "coco"))),
        *("--winoground", str(save_winoground(folder / "winoground", 12))),
        *("--also", f"other=local-dir:{save_tiny_clip(folder / 'other', seed=1)}"),
        *("--config", str(folder / "more.yaml"), *SIZES, "--device", "cpu", "--workers", "1"),
    ]


@pytest.fixture(scope="module")
def straight(made: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduction with two seeds that was not stopped."""
    out = tmp_path_factory.mktemp("straight") / "out"
    assert exit_code(["reproduce", *made, "--seeds", "0,1", "--out", str(out)]) == 0
    return out


def written(out: Path) -> dict[Path, tuple[int, bytes]]:
    """When each result was written, and its content."""
    return {
        file.relative_to(out): (file.stat().st_mtime_ns, file.read_bytes())
        for file in [*out.glob("runs/*/delta/*"), *out.glob("evaluations/*/*/*")]
    }


def table_of(out: Path) -> list[dict[str, str]]:
    with (out / "table.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def row_of(out: Path, **wanted: str) -> dict[str, str]:
    (found,) = [row for row in table_of(out) if wanted.items() <= row.items()]
    return found


def described(out: Path, run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "runs" / run / "delta" / "sds_clip_delta.json").read_text())
    return content


def right(file: Path, outcome: str) -> list[bool]:
    items = json.loads(file.read_text())["items"]
    return [item["correct"][outcome] for item in sorted(items, key=lambda item: str(item["id"]))]


def test_control_and_sds_clip_differ_in_their_objective_alone(straight: Path) -> None:
    for seed in (0, 1):
        control, run = (described(straight, f"{name}-{seed}") for name in ("control", "sds-clip"))
        assert (control["configuration"]["objective"], run["configuration"]["objective"]) == (
            "clip",
            "sds-clip",
        )
        assert {**control["configuration"], "objective": "sds-clip"} == run["configuration"]
        assert run["configuration"]["seed"] == seed
        assert run["configuration"]["steps"] == STEPS
        assert run["data"]["data_hash"] == control["data"]["data_hash"]
        assert run["version"] != control["version"]


def test_the_table_has_each_model_with_its_own_share_of_right_items(straight: Path) -> None:
    of_winoground = [row for row in table_of(straight) if row["benchmark"] == "winoground" and not row["tag"]]
    models = ["base", "control-0", "sds-clip-0", "control-1", "sds-clip-1", "other"]
    assert [row["model"] for row in of_winoground if row["figure"] == "group_match"] == models
    folder = straight / "evaluations" / "winoground"
    for model in ("base", "sds-clip-0", "sds-clip-1", "other"):
        correct = right(folder / model / "results.json", "group_match")
        row = row_of(straight, benchmark="winoground", figure="group_match", tag="", model=model)
        assert float(row["%"]) == pytest.approx(100 * sum(correct) / 12)
        assert (row["items"], float(row["chance %"])) == ("12", 50)


def test_the_difference_is_that_of_sds_clip_and_the_control_of_its_seed(straight: Path) -> None:
    changed = 0
    for seed, figure in product(("0", "1"), ("group_match", "text_score", "image_score")):
        folder = straight / "evaluations" / "winoground" / f"sds-clip-{seed}"
        outcome = figure.removesuffix("_score")
        control, run = (right(folder / f"{name}.json", outcome) for name in ("baseline", "results"))
        reference = json.loads((folder / "baseline.json").read_text())["provenance"]["model"]
        assert reference == f"local-dir:{straight}/runs/control-{seed}/delta"
        gained = sum(new and not old for old, new in zip(control, run, strict=True))
        lost = sum(old and not new for old, new in zip(control, run, strict=True))
        row = row_of(straight, benchmark="winoground", figure=figure, tag="", model=f"sds-clip-{seed}")
        assert (row["gained"], row["lost"]) == (str(gained), str(lost))
        assert float(row["points over control"]) == pytest.approx(100 * (gained - lost) / 12, rel=1e-5)
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert float(row["p two-sided"]) == pytest.approx(p, rel=1e-5)
        changed += gained + lost
    assert changed
    for model in ("base", "control-0", "other"):
        row = row_of(straight, benchmark="winoground", figure="group_match", tag="", model=model)
        assert row["points over control"] == row["p two-sided"] == ""


def test_the_mean_over_seeds_has_an_interval_over_seeds_and_items(straight: Path) -> None:
    differences = []
    for seed in (0, 1):
        folder = straight / "evaluations" / "winoground" / f"sds-clip-{seed}"
        control, run = (right(folder / f"{name}.json", "group_match") for name in ("baseline", "results"))
        differences.append([int(new) - int(old) for old, new in zip(control, run, strict=True)])
    found = estimate(np.array(differences, dtype=float)[:, None])
    page = (straight / "report.md").read_text(encoding="utf-8")
    (line,) = [
        line
        for line in page.splitlines()
        if "winoground" in line and "group_match" in line and "| mean |" in line
    ]
    assert f"({points_interval(found.interval().low, found.interval().high)})" in line
    assert p_value(found.p).replace(NO_BREAK, " ") in line


def test_the_table_has_the_figures_of_each_tag(straight: Path) -> None:
    results = json.loads(
        (straight / "evaluations" / "winoground" / "sds-clip-0" / "results.json").read_text()
    )
    of_tags = [row for row in table_of(straight) if row["model"] == "sds-clip-0" and row["tag"]]
    assert {row["tag"] for row in of_tags} == set(results["by_tag"])
    assert of_tags
    for row in of_tags:
        of = results["by_tag"][row["tag"]][row["figure"]]
        assert (float(row["%"]), row["items"]) == (pytest.approx(100 * of["value"], rel=1e-5), str(of["n"]))


def test_retrieval_is_measured_on_the_validation_captions(straight: Path) -> None:
    row = row_of(straight, benchmark="retrieval", figure="image_retrieval_recall@1", model="base")
    assert (row["items"], float(row["chance %"])) == ("8", 12.5)


def test_the_page_says_for_each_seed_whether_the_teacher_had_a_say(straight: Path) -> None:
    page = (straight / "report.md").read_text(encoding="utf-8")
    for seed in (0, 1):
        records = [
            json.loads(line)
            for line in (straight / "runs" / f"sds-clip-{seed}" / "log.jsonl").read_text().splitlines()
        ]
        late = [record["teacher_gradient_share"] for record in records if "teacher_gradient_share" in record]
        share = sum(late[2:]) / 2
        (line,) = [line for line in page.splitlines() if line.startswith(f"- Seed {seed}: ")]
        assert f" {share:.3g} times" in line
        assert line.startswith(f"- Seed {seed}: no go.") == (teacher_had_no_say(records) is not None)
    assert "winoground" in page
    assert "mean" in page  # of the two seeds
    assert described(straight, "sds-clip-0")["data"]["data_hash"][:12] in page


def test_a_finished_reproduction_is_not_done_again_and_grows_by_what_is_new(
    made: list[str], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, page = written(straight), (straight / "report.md").read_bytes()
    assert exit_code(["reproduce", *made, "--seeds", "0", "--seeds", "1", "--out", str(straight)]) == 0
    assert written(straight) == before
    assert (straight / "report.md").read_bytes() == page
    assert str(straight / "report.md") in capsys.readouterr().out
    lost = straight / "evaluations" / "winoground" / "sds-clip-1" / "report.html"
    lost.unlink()  # as if it had been killed there
    assert exit_code(["reproduce", *made, "--seeds", "0,1", "--out", str(straight)]) == 0
    redone = {file for file, found in written(straight).items() if before[file][0] != found[0]}
    assert redone
    assert {file.parent for file in redone} == {lost.relative_to(straight).parent}
    assert (straight / "report.md").read_bytes() == page


def start(*arguments: str) -> "subprocess.Popen[str]":
    """The real command in a process of its own, with as many threads as this one: the last bit hangs on that."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "sds_clip", "reproduce", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def killed_at(line: str, process: "subprocess.Popen[str]", times: int = 1) -> None:
    """Kill the process after it has written a line that begins so, for the given time."""
    assert process.stderr is not None
    for said in process.stderr:
        times -= said.startswith(line)
        if times == 0:
            process.kill()
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL
            return
    raise AssertionError(f"the command ended without {line!r}")


@pytest.mark.long
def test_killed_in_the_second_run_and_started_again_it_ends_as_if_it_had_not_been(
    made: list[str], straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = [*made, "--seeds", "0,1", "--out", str(out)]
    killed_at(f"step 2/{STEPS}", start(*options), times=2)  # the control has done it before
    before = written(out)
    assert any("base" in file.parts for file in before)
    assert any("control-0" in file.parts for file in before)
    assert not (out / "runs" / "sds-clip-0" / "delta").exists()
    assert exit_code(["reproduce", *options]) == 0
    after = written(out)
    assert {file: after[file] for file in before} == before
    for file, (_, content) in written(straight).items():
        if file.suffix == ".safetensors":
            assert after[file][1] == content
    assert table_of(out) == table_of(straight)


def test_a_terminated_run_says_that_the_same_command_continues_it(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "out" / "runs" / "control-0"

    def terminate() -> None:
        while not (run / "log.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate, daemon=True)
    thread.start()
    code = exit_code(["reproduce", *made, "--steps", "1000", "--out", str(tmp_path / "out")])
    thread.join()
    assert code == 128 + signal.SIGTERM
    assert "same command" in capsys.readouterr().err.splitlines()[-1]
    assert any((run / "checkpoints").iterdir())


def damaged(made: list[str], folder: Path) -> None:
    """Copies of what a reproduction is made of, each without something that only a run would read."""
    given = dict(zip(made[::2], made[1::2], strict=True))
    (folder / "taken").mkdir()
    (folder / "taken" / "runs").touch()
    shutil.copytree(given["--teacher"], folder / "no-vae", ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(given["--teacher"], folder / "no-tokenizer", ignore=shutil.ignore_patterns("tokenizer"))
    shutil.copytree(given["--teacher"], folder / "cut")
    os.truncate(folder / "cut" / "unet" / "diffusion_pytorch_model.safetensors", 2000)
    for option, name in (("--coco", "no-images"), ("--winoground", "no-pictures")):
        shutil.copytree(given[option], folder / name, ignore=shutil.ignore_patterns("*.png", "*.jpg"))


def refused(arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["reproduce", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, last = captured.err.splitlines()
    assert last.startswith("sds-clip: ")
    assert message in last


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coco": "{folder}"}, "captions_train2017.json"),
        ({"coco": "{folder}/half"}, "images"),
        ({"winoground": "{folder}/nowhere"}, "nowhere"),
        ({"winoground": "{folder}/half"}, "examples.jsonl"),
        ({"base": "local-dir:{folder}/nowhere"}, "nowhere"),
        ({"teacher": "./nowhere"}, "./nowhere"),
        ({"teacher": "{folder}"}, "{folder}"),
        ({"also": "local-dir:{folder}"}, "NAME=REFERENCE"),
        ({"also": "base=demo"}, "'base'"),
        ({"also": "other=demo"}, "twice"),
        ({"also": "../other=demo"}, "'../other'"),
        ({"also": "third=local-dir:{folder}/nowhere"}, "nowhere"),
        ({"seeds": "0,one"}, "'one'"),
        ({"seeds": "-1"}, "seed"),
        ({"batch_size": "1"}, "batch_size"),
        ({"sds_batch_size": "64"}, "sds_batch_size"),
        ({"config": "{folder}/objective.yaml"}, "objective"),
        ({"config": "{folder}/unknown.yaml"}, "learning_rate"),
        ({"device": "abacus"}, "'abacus'"),
        ({"batch_size": "512"}, "batch of 512 needs as many samples"),
        ({"out": "{folder}/objective.yaml"}, "objective.yaml is a file"),
        ({"out": "{folder}/objective.yaml/below/it"}, "objective.yaml is a file"),
        ({"out": "{folder}/taken"}, "taken/runs is a file"),
        ({"base": "local-dir:{siglip}"}, "without a logit bias"),
        ({"teacher": "{folder}/no-vae"}, "no-vae/vae"),
        ({"teacher": "{folder}/cut"}, "download it again"),
        ({"teacher": "{folder}/no-tokenizer"}, "no-tokenizer/tokenizer cannot be loaded"),
        ({"also": "a" * 300 + "=demo"}, "at most 64"),
        ({"coco": "{folder}/no-images"}, "no-images/images"),
        ({"winoground": "{folder}/no-pictures"}, "no-pictures/images"),
        ({"classes": "imagenet"}, "--zero-shot"),
        ({"config": "{folder}/format.yaml"}, "data_format"),
        ({"config": "{folder}/device.yaml"}, "device"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    changes: Mapping[str, str],
    message: str,
    made: list[str],
    siglip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    damaged(made, tmp_path)
    half = tmp_path / "half"
    half.mkdir()
    for name in ("captions_train2017.json", "captions_val2017.json"):
        (half / name).write_text("{}")
    (tmp_path / "objective.yaml").write_text("objective: score")
    (tmp_path / "unknown.yaml").write_text("learning_rate: 1")
    (tmp_path / "format.yaml").write_text("data_format: csv")
    (tmp_path / "device.yaml").write_text("device: cuda")
    before = sorted(tmp_path.rglob("*"))
    options = [*made, "--out", str(tmp_path / "out")]
    for name, value in changes.items():
        options += [f"--{name.replace('_', '-')}", value.format(folder=tmp_path, siglip=siglip_folder)]
    refused(options, message.format(folder=tmp_path), capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "8"], "steps: 4 -> 8"),
        (["--lambda", "0.5"], "sds_weight: 100.0 -> 0.5"),
        (["--also", "other=demo"], "other: local-dir:"),
    ],
)
def test_a_folder_that_was_begun_with_other_options_is_refused(
    options: list[str],
    message: str,
    made: list[str],
    straight: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = written(straight)
    given = (
        made if options[0] != "--also" else made[: made.index("--also")] + made[made.index("--also") + 2 :]
    )
    for dry in ([], ["--dry-run"]):
        refused([*given, *options, *dry, "--seeds", "0,1", "--out", str(straight)], message, capsys)
    assert written(straight) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runs/sds-clip-0/log.jsonl", ""),
        ("runs/sds-clip-0/delta/sds_clip_delta.json", "{"),
        ("evaluations/winoground/sds-clip-0/results.json", "{"),
        ("evaluations/winoground/sds-clip-0/comparison.json", "{"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_remove(
    name: str, content: str, made: list[str], straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = straight / name
    before = file.read_bytes()
    file.write_text(content)
    refused([*made, "--seeds", "0,1", "--out", str(straight)], "Remove the folder", capsys)
    file.write_bytes(before)


@pytest.fixture
def copied(straight: Path, tmp_path: Path) -> Path:
    """A finished reproduction that a test may change."""
    return Path(shutil.copytree(straight, tmp_path / "out"))


def rewrite(file: Path, **changes: object) -> None:
    """Change the provenance of an evaluation's results."""
    content = json.loads(file.read_text())
    content["provenance"] |= changes
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("model", "file"), [("sds-clip-0", "results"), ("sds-clip-1", "baseline"), ("other", "results")]
)
def test_results_of_other_weights_are_measured_again(
    model: str, file: str, made: list[str], straight: Path, copied: Path
) -> None:
    changed = copied / "evaluations" / "winoground" / model / f"{file}.json"
    rewrite(changed, model_version="0" * 64)
    assert exit_code(["reproduce", *made, "--seeds", "0,1", "--out", str(copied)]) == 0
    version = json.loads(changed.read_text())["provenance"]["model_version"]
    kept = straight / changed.relative_to(copied)
    assert version == json.loads(kept.read_text())["provenance"]["model_version"]


def test_a_base_with_other_weights_is_refused_before_training(
    made: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copied / "evaluations" / "winoground" / "base" / "results.json", model_version="0" * 64)
    refused([*made, "--seeds", "0,1,2", "--out", str(copied)], "other weights now", capsys)
    assert not (copied / "runs" / "control-2").exists()


def test_captions_that_were_changed_are_refused_before_training(
    made: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(made[made.index("--winoground") + 1]) / "examples.jsonl"
    text = file.read_text()
    first, *others = text.splitlines()
    record = json.loads(first)
    record["caption_0"], record["caption_1"] = record["caption_1"], record["caption_0"]
    file.write_text("\n".join([json.dumps(record), *others]))
    try:
        refused([*made, "--seeds", "0,1,2", "--out", str(copied)], "data of winoground", capsys)
    finally:
        file.write_text(text)
    assert not (copied / "runs" / "control-2").exists()


def test_models_measured_on_other_images_are_never_on_one_page(
    made: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copied / "evaluations" / "winoground" / "base" / "results.json", data_hash="0" * 64)
    before = (copied / "report.md").read_bytes()
    assert exit_code(["reproduce", *made, "--seeds", "0,1", "--out", str(copied)]) == 2
    assert "data of winoground" in capsys.readouterr().err.splitlines()[-1]
    assert (copied / "report.md").read_bytes() == before


def test_runs_with_other_options_than_those_asked_for_are_not_shown(
    made: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "plan.json").unlink()
    refused(
        [*made, "--lambda", "5", "--seeds", "0,1", "--out", str(copied)], "sds_weight: 100.0 -> 5.0", capsys
    )


def test_no_seed_and_no_benchmark_of_a_folder_can_be_left_out_unsaid(
    made: list[str], straight: Path, copied: Path
) -> None:
    at = made.index("--winoground")
    assert exit_code(["reproduce", *made[:at], *made[at + 2 :], "--seeds", "1", "--out", str(copied)]) == 0
    page = (copied / "report.md").read_text(encoding="utf-8")
    assert "Seeds: 0, 1." in page
    assert "not on this page: winoground." in page
    assert "not on this page" not in (straight / "report.md").read_text(encoding="utf-8")


def test_a_damaged_model_beside_them_is_found_before_training(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_tiny_clip(tmp_path / "other", seed=1)
    os.truncate(other / "open_clip_model.safetensors", 1000)
    out = tmp_path / "out"
    assert exit_code(["reproduce", *made, "--also", f"third=local-dir:{other}", "--out", str(out)]) == 2
    assert "cannot be read" in capsys.readouterr().err.splitlines()[-1]
    assert not (out / "runs").exists()


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "{"])
def test_a_folder_whose_plan_is_another_program_s_is_refused(
    content: str, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text(content, encoding="utf-8")
    refused([*made, "--out", str(tmp_path)], "use another --out", capsys)


@pytest.mark.parametrize(
    ("run", "input_", "message"),
    [
        ("control-1", "data_hash", "data_hash"),
        ("sds-clip-1", "teacher_version", "seeds 0 and 1 differ in teacher_version"),
    ],
)
def test_runs_with_different_data_or_teachers_are_not_compared(
    run: str, input_: str, message: str, made: list[str], straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = straight / "runs" / run / "delta" / "sds_clip_delta.json"
    text = file.read_text()
    content = json.loads(text)
    content["data"][input_] = "0" * 64
    file.write_text(json.dumps(content))
    refused([*made, "--seeds", "0,1", "--out", str(straight)], message, capsys)
    file.write_text(text)


def test_a_dry_run_estimates_and_writes_nothing(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["reproduce", *made, "--seeds", "0,1", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "estimate" in shown
    for word in ("control", "SDS-CLIP", "A100", "this CPU", "Memory", "Disk"):
        assert word in shown
    assert list(tmp_path.iterdir()) == []

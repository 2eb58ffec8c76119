"""`sds-clip reproduce` on a tiny CLIP and a tiny teacher in Stable Diffusion's shape: whole, killed, and refused."""

import csv
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from sds_clip.models.evaluation.estimate import estimate
from sds_clip.models.evaluation.report.words import NO_BREAK, p_value, points_interval
from sds_clip.models.training.influence import teacher_had_no_say
from tests.checkpoints import save_tiny_clip
from tests.sds_clip.command_line import exit_code, start
from tests.sds_clip.transcript import test_transcript  # noqa: F401
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


@pytest.fixture
def options(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """$SMALL is what a short reproduction is made of, $OTHER a model beside, and $COCO and so on are options."""
    given = dict(zip(made[::2], made[1::2], strict=True))
    other = ["--also", given.pop("--also")]
    monkeypatch.setenv("SMALL", shlex.join(itertools.chain(*given.items())))
    monkeypatch.setenv("OTHER", shlex.join(other))
    for name in ("base", "coco", "teacher", "winoground"):
        monkeypatch.setenv(name.upper(), given[f"--{name}"].removeprefix("local-dir:"))


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
    killed_at(f"step 2/{STEPS}", start("reproduce", *options), times=2)  # the control has done it before
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


def test_models_measured_on_other_images_are_never_on_one_page(
    made: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copied / "evaluations" / "winoground" / "base" / "results.json", data_hash="0" * 64)
    before = (copied / "report.md").read_bytes()
    assert exit_code(["reproduce", *made, "--seeds", "0,1", "--out", str(copied)]) == 2
    assert "data of winoground" in capsys.readouterr().err.splitlines()[-1]
    assert (copied / "report.md").read_bytes() == before


def test_no_seed_and_no_benchmark_of_a_folder_can_be_left_out_unsaid(
    made: list[str], straight: Path, copied: Path
) -> None:
    at = made.index("--winoground")
    assert exit_code(["reproduce", *made[:at], *made[at + 2 :], "--seeds", "1", "--out", str(copied)]) == 0
    page = (copied / "report.md").read_text(encoding="utf-8")
    assert "Seeds: 0, 1." in page
    assert "not on this page: winoground." in page
    assert "not on this page" not in (straight / "report.md").read_text(encoding="utf-8")

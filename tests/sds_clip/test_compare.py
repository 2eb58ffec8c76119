"""`sds-clip compare` on a tiny CLIP and a tiny teacher in Stable Diffusion's shape: whole, killed, and refused."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from sds_clip.models.errors import TrainingError
from sds_clip.models.evaluation.estimate import estimate
from sds_clip.models.evaluation.report.words import NO_BREAK, p_value, points_interval
from sds_clip.models.recipes.arms import Arms
from sds_clip.models.recipes.plan import read_plan
from sds_clip.models.training.influence import teacher_had_no_say
from tests.checkpoints import save_tiny_clip
from tests.sds_clip.command_line import exit_code, start
from tests.sds_clip.transcript import test_transcript  # noqa: F401
from tests.teachers import save_sd_teacher
from tests.training import save_coco
from tests.worker.sets import save_winoground

STEPS = 4


def save_coco_folder(folder: Path) -> Path:
    """Pictures in `images`, with captions for training, and for validation those of the first eight."""
    captions = save_coco(folder / "images")
    content = json.loads(captions.read_text())
    captions.rename(folder / "captions_train2017.json")
    few = {name: records[:8] for name, records in content.items()}
    (folder / "captions_val2017.json").write_text(json.dumps(few))
    return folder


@pytest.fixture(scope="module")
def plan(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A short comparison of two recipes and two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    coco = save_coco_folder(folder / "coco")
    return {
        "base": f"local-dir:{tiny_folder}",
        "teacher": str(save_sd_teacher(folder / "teacher")),
        "data": str(coco / "captions_train2017.json"),
        "images": str(coco / "images"),
        "val": str(coco / "captions_val2017.json"),
        "options": {
            "steps": STEPS,
            "batch_size": 8,
            "micro_batch_size": 4,
            "sds_batch_size": 4,
            "workers": 1,
            "warmup_steps": 1,
            "lr": 0.05,
            "log-every": 1,
            "save-every": 1,
        },
        "recipes": {"control": "clip", "sds-clip": {"recipe": "sds-clip", "lambda": 100}},
        "control": "control",
        "seeds": [0, 1],
        "benchmarks": {
            "winoground": str(save_winoground(folder / "winoground", 12)),
            "retrieval": {"data": str(coco / "captions_val2017.json"), "images": str(coco / "images")},
        },
        "primary": "winoground",
        "also": {"other": f"local-dir:{save_tiny_clip(folder / 'other', seed=1)}"},
    }


def asked(folder: Path, plan: dict[str, Any], out: Path, **changes: Any) -> list[str]:
    """The arguments for a plan with changes, whose file is written to the folder."""
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(plan | changes, sort_keys=False))
    return ["compare", str(file), "--out", str(out), "--device", "cpu"]


@pytest.fixture
def files(plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """plan.yaml is a short comparison's, and $BASE and so on are its files."""
    Path("plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    for name, value in (
        ("BASE", plan["base"]),
        ("TEACHER", plan["teacher"]),
        ("COCO", str(Path(plan["images"]).parent)),
        ("WINOGROUND", plan["benchmarks"]["winoground"]),
    ):
        monkeypatch.setenv(name, value.removeprefix("local-dir:"))


@pytest.fixture(scope="module")
def straight(plan: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with two seeds that was not stopped."""
    folder = tmp_path_factory.mktemp("straight")
    assert exit_code(asked(folder, plan, folder / "out")) == 0
    return folder / "out"


def written(out: Path) -> dict[Path, tuple[int, bytes]]:
    """When each result was written, and its content."""
    return {
        file.relative_to(out): (file.stat().st_mtime_ns, file.read_bytes())
        for file in [*out.glob("runs/*/delta/*"), *out.glob("evaluations/*/*/*")]
    }


def rows_of(out: Path, name: str = "table") -> list[dict[str, str]]:
    with (out / f"{name}.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def row_of(out: Path, **wanted: str) -> dict[str, str]:
    (found,) = [row for row in rows_of(out) if wanted.items() <= row.items()]
    return found


def differences_of(out: Path, **wanted: str) -> list[dict[str, str]]:
    return [row for row in rows_of(out, "differences") if wanted.items() <= row.items()]


def described(out: Path, run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "runs" / run / "delta" / "sds_clip_delta.json").read_text())
    return content


def right(out: Path, model: str, outcome: str) -> list[bool]:
    items = json.loads((out / "evaluations" / "winoground" / model / "results.json").read_text())["items"]
    return [item["correct"][outcome] for item in sorted(items, key=lambda item: str(item["id"]))]


def test_recipes_differ_in_their_own_options_alone(straight: Path) -> None:
    for seed in (0, 1):
        control, run = (described(straight, f"{name}-{seed}") for name in ("control", "sds-clip"))
        assert control["configuration"]["objective"] == "clip"
        own = {"objective": "sds-clip", "sds_weight": 100.0, "teacher": run["configuration"]["teacher"]}
        assert {**control["configuration"], **own} == run["configuration"]
        assert run["configuration"]["seed"] == seed
        assert run["configuration"]["steps"] == STEPS
        assert run["data"]["data_hash"] == control["data"]["data_hash"]
        assert run["version"] != control["version"]


def test_the_table_has_each_model_with_its_own_share_of_right_items(straight: Path) -> None:
    of_winoground = [row for row in rows_of(straight) if row["benchmark"] == "winoground" and not row["tag"]]
    models = ["base", "other", "control-0", "sds-clip-0", "control-1", "sds-clip-1"]
    assert [row["model"] for row in of_winoground if row["figure"] == "group_match"] == models
    for model in models:
        correct = right(straight, model, "group_match")
        row = row_of(straight, benchmark="winoground", figure="group_match", tag="", model=model)
        assert float(row["%"]) == pytest.approx(100 * sum(correct) / 12)
        assert (row["items"], float(row["chance %"])) == ("12", 50)


def test_differences_are_those_of_the_same_seed_with_an_interval_over_seeds_and_items(straight: Path) -> None:
    (line,) = differences_of(straight, benchmark="winoground", recipe="sds-clip", figure="group_match")
    for of, others in (("control", ("control-0", "control-1")), ("base", ("base", "base"))):
        pairs = [
            (right(straight, f"sds-clip-{seed}", "group_match"), right(straight, others[seed], "group_match"))
            for seed in (0, 1)
        ]
        values = np.array([[float(new) - old for new, old in zip(*pair, strict=True)] for pair in pairs])
        found = estimate(values[:, None])
        assert float(line[f"points over {of}"]) == pytest.approx(100 * values.mean(), rel=1e-5)
        assert float(line[f"low over {of}"]) == pytest.approx(100 * max(found.interval().low, -1), rel=1e-5)
        assert float(line[f"high over {of}"]) == pytest.approx(100 * min(found.interval().high, 1), rel=1e-5)
        assert float(line[f"p over {of}"]) == pytest.approx(found.p, rel=1e-5)
    page = (straight / "report.md").read_text(encoding="utf-8")
    (shown,) = [row for row in page.splitlines() if "group_match" in row and "| sds-clip |" in row]
    assert f"({points_interval(max(found.interval().low, -1.0), min(found.interval().high, 1.0))})" in shown


def test_one_seed_is_compared_by_mcnemars_test_with_its_items(plan: dict[str, Any], tmp_path: Path) -> None:
    assert exit_code(asked(tmp_path, plan, tmp_path / "out", seeds=[1], also={})) == 0
    (line,) = differences_of(tmp_path / "out", recipe="sds-clip", figure="group_match")
    new, old = (right(tmp_path / "out", f"{name}-1", "group_match") for name in ("sds-clip", "control"))
    gained = sum(after and not before for before, after in zip(old, new, strict=True))
    lost = sum(before and not after for before, after in zip(old, new, strict=True))
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert float(line["points over control"]) == pytest.approx(100 * (gained - lost) / 12, rel=1e-5)
    assert float(line["p over control"]) == pytest.approx(p, rel=1e-5)
    assert p_value(p).replace(NO_BREAK, " ") in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_the_table_has_the_primary_figure_of_each_tag(straight: Path) -> None:
    results = json.loads(
        (straight / "evaluations" / "winoground" / "sds-clip-0" / "results.json").read_text()
    )
    of_tags = [row for row in rows_of(straight) if row["model"] == "sds-clip-0" and row["tag"]]
    assert {row["tag"] for row in of_tags} == set(results["by_tag"])
    for row in of_tags:
        of = results["by_tag"][row["tag"]][row["figure"]]
        assert (float(row["%"]), row["items"]) == (pytest.approx(100 * of["value"], rel=1e-5), str(of["n"]))


def test_retrieval_is_measured_and_the_picture_places_each_recipe_by_it(straight: Path) -> None:
    row = row_of(straight, benchmark="retrieval", figure="image_retrieval_recall@1", model="base")
    assert (row["items"], float(row["chance %"])) == ("8", 12.5)
    picture = (straight / "report.svg").read_text()
    assert ">sds-clip</text>" in picture
    assert ">control</text>" in picture


def test_the_page_says_of_each_run_whether_its_teacher_had_a_say_and_which_plan_it_is_of(
    straight: Path,
) -> None:
    page = (straight / "report.md").read_text(encoding="utf-8")
    for seed in (0, 1):
        log = (straight / "runs" / f"sds-clip-{seed}" / "log.jsonl").read_text()
        records = [json.loads(line) for line in log.splitlines()]
        (line,) = [line for line in page.splitlines() if line.startswith(f"- sds-clip-{seed}: ")]
        assert line.startswith(f"- sds-clip-{seed}: no.") == (teacher_had_no_say(records) is not None)
    assert json.loads((straight / "plan.json").read_text())["hash"] in page
    assert "hash: 24 with winoground, 8 with retrieval." in page  # they are training's own pictures here


def test_a_finished_comparison_is_not_done_again_and_what_is_lost_is(
    plan: dict[str, Any], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, page = written(straight), (straight / "report.md").read_bytes()
    assert exit_code(asked(tmp_path, plan, straight)) == 0
    assert written(straight) == before
    assert (straight / "report.md").read_bytes() == page
    assert str(straight / "report.md") in capsys.readouterr().out
    lost = straight / "evaluations" / "winoground" / "sds-clip-1" / "report.html"
    lost.unlink()  # as if it had been killed there
    assert exit_code(asked(tmp_path, plan, straight)) == 0
    redone = {file for file, found in written(straight).items() if before[file][0] != found[0]}
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
    plan: dict[str, Any], straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = asked(tmp_path, plan, out)
    killed_at(f"step 2/{STEPS}", start(*arguments), times=2)  # the control has done it before
    before = written(out)
    assert any("base" in file.parts for file in before)
    assert any("control-0" in file.parts for file in before)
    assert not (out / "runs" / "sds-clip-0" / "delta").exists()
    assert exit_code(arguments) == 0
    after = written(out)
    assert {file: after[file] for file in before if "control-0" not in file.parts} == {
        file: of for file, of in before.items() if "control-0" not in file.parts
    }
    for file, (_, content) in written(straight).items():
        if file.suffix == ".safetensors":
            assert after[file][1] == content
    assert rows_of(out) == rows_of(straight)


def test_a_terminated_comparison_says_that_the_same_command_continues_it(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.models.deadline.STOP_S", 600.0)  # busy cores may need more than the default
    run = tmp_path / "out" / "runs" / "control-0"

    def terminate() -> None:
        while not (run / "log.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate, daemon=True)
    thread.start()
    code = exit_code(asked(tmp_path, plan, tmp_path / "out", options={**plan["options"], "steps": 1000}))
    thread.join()
    assert code == 128 + signal.SIGTERM
    assert "same command" in capsys.readouterr().err.splitlines()[-1]
    assert any((run / "checkpoints").iterdir())


@pytest.fixture
def copied(straight: Path, tmp_path: Path) -> Path:
    """A finished comparison that a test may change."""
    return Path(shutil.copytree(straight, tmp_path / "out"))


def rewrite(file: Path, **changes: object) -> None:
    """Change the provenance of an evaluation's results."""
    content = json.loads(file.read_text())
    content["provenance"] |= changes
    file.write_text(json.dumps(content, indent=1))


@pytest.mark.parametrize("model", ["sds-clip-0", "control-1", "other"])
def test_results_of_other_weights_are_measured_again(
    model: str, plan: dict[str, Any], straight: Path, copied: Path, tmp_path: Path
) -> None:
    changed = copied / "evaluations" / "winoground" / model / "results.json"
    rewrite(changed, model_version="0" * 64)
    assert exit_code(asked(tmp_path, plan, copied)) == 0
    version = json.loads(changed.read_text())["provenance"]["model_version"]
    kept = straight / changed.relative_to(copied)
    assert version == json.loads(kept.read_text())["provenance"]["model_version"]


def test_models_measured_on_other_images_are_never_on_one_page(
    plan: dict[str, Any], copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copied / "evaluations" / "winoground" / "base" / "results.json", data_hash="0" * 64)
    before = (copied / "report.md").read_bytes()
    assert exit_code(asked(tmp_path, plan, copied)) == 2
    assert "data of winoground" in capsys.readouterr().err.splitlines()[-1]
    assert (copied / "report.md").read_bytes() == before


def test_a_plan_may_grow_by_seeds_recipes_and_benchmarks_and_never_shrink(
    plan: dict[str, Any], copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(copied)
    few = {"winoground": plan["benchmarks"]["winoground"]}
    for fewer in ({"seeds": [1]}, {"benchmarks": few}, {"recipes": {"control": "clip"}}, {"also": {}}):
        assert exit_code(asked(tmp_path, plan, copied, **fewer)) == 2
        assert f"another plan: {next(iter(fewer))} had" in capsys.readouterr().err
    more = {**plan["recipes"], "choice": {"objective": "clip", "negatives": "swap", "negatives_weight": 0.5}}
    more["mine"] = {"objective": "clip", "trainable": "all"}
    assert exit_code(asked(tmp_path, plan, copied, recipes=more)) == 0
    said = capsys.readouterr().err
    assert len(set(re.findall(r"trained: ([0-9,]+) numbers", said))) == 2
    assert "text alone" in said
    after = written(copied)
    assert {file: after[file] for file in before} == before
    assert [line["recipe"] for line in differences_of(copied, figure="group_match")] == [
        *("base", "other", "control", "sds-clip", "choice", "mine")
    ]


def test_the_page_says_which_weight_the_teacher_got_by_itself(
    plan: dict[str, Any], copied: Path, tmp_path: Path
) -> None:
    more = {**plan["recipes"], "balanced": {"recipe": "sds-clip", "lambda": "auto"}}

    assert exit_code(asked(tmp_path, plan, copied, recipes=more)) == 0

    page = (copied / "report.md").read_text(encoding="utf-8")
    for seed in plan["seeds"]:
        weight = described(copied, f"balanced-{seed}")["metrics"]["teacher_weight"]
        assert re.search(rf"^- balanced-{seed}: .* \(lambda {weight:.3g}\)$", page, re.MULTILINE)
    assert not re.search(r"^- sds-clip-0: .*\(lambda", page, re.MULTILINE)


def test_pictures_of_a_benchmark_can_be_left_out_of_training(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    alone = {"benchmarks": {"retrieval": plan["benchmarks"]["retrieval"]}, "primary": "retrieval"}
    arguments = asked(tmp_path, plan, out, seeds=[0], also={}, leave_out_shared=True, **alone)
    assert exit_code(arguments) == 0
    assert described(out, "control-0")["data"]["data_size"] == 24 - 8
    assert "They were left out of training." in (out / "report.md").read_text(encoding="utf-8")
    begun = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(begun | {"left_out": begun["left_out"][1:]}))
    capsys.readouterr()
    assert exit_code(arguments) == 2
    assert "begun without 7 of the pairs, and the benchmarks share 8 with them now" in capsys.readouterr().err


def test_runs_are_not_added_to_those_of_other_data(plan: dict[str, Any], copied: Path) -> None:
    arms = Arms(read_plan(plan), copied)
    arms.check_data(described(copied, "control-0")["data"]["data_hash"])
    with pytest.raises(TrainingError, match="training data have changed since control-0"):
        arms.check_data("0" * 64)


def test_a_recipe_that_never_ran_may_be_left_out_again(
    plan: dict[str, Any], copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {**plan["recipes"], "alike": {"recipe": "clip", "paraphrase_weight": 1.0}}
    before = written(copied)
    assert exit_code(asked(tmp_path, plan, copied, recipes=wrong)) == 2
    assert "has two different captions" in capsys.readouterr().err
    assert written(copied) == before
    begun = json.loads((copied / "plan.json").read_text())
    begun["plan"]["recipes"] = wrong
    (copied / "plan.json").write_text(json.dumps(begun))
    Arms(read_plan(plan), copied).check_plan()


@pytest.mark.parametrize("name", ["paper"])
def test_plans_that_ship_can_be_used_and_are_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["compare", name, "--print"]) == 0
    plan = read_plan(yaml.safe_load(capsys.readouterr().out))
    assert {recipe: plan.recipe(recipe).title for recipe in plan.recipes}.keys() >= {plan.control}

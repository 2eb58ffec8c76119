"""Evaluation jobs: the figures of the command line, and the files that a row names."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.cli import main
from sds_clip.models.clip.model import Clip
from sds_clip.models.teacher.diffusion_score import image_errors
from sds_clip.worker.errors import Stopped
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.references import loadable
from tests.checkpoints import save_tiny_clip
from tests.deltas import save_tuned
from tests.worker.work import Encoded, Work, result_of


def written(work: Work, job: Job, name: str) -> Any:
    return json.loads((work.config.data_dir / result_of(job)["files"][name]).read_text())


def by_command(folder: Path, name: str, *options: str) -> Any:
    assert main(["evaluate", *options, "--out", str(folder / "out"), "--device", "cpu"]) == 0
    return json.loads((folder / "out" / f"{name}.json").read_text())


def alike(results: dict[str, Any]) -> dict[str, Any]:
    """Results without where the data lie."""
    for item in results["items"]:
        item["images"] = [Path(image["path"]).name for image in item["images"]]
    return results


def test_figures_are_those_of_the_command_line_with_the_baseline_s_beside_them(
    work: Work, tiny_folder: Path, winoground_folder: Path, winoground_id: str, tmp_path: Path
) -> None:
    other = save_tiny_clip(tmp_path / "other", seed=7)
    model, baseline = f"local-dir:{tiny_folder}", f"local-dir:{other}"
    job = work.evaluated(
        benchmark="winoground",
        data=winoground_id,
        model=model,
        baseline=baseline,
    )
    options = ["winoground", "--data", str(winoground_folder), "--model", model, "--baseline", baseline]
    expected = by_command(tmp_path, "results", *options)
    assert alike(written(work, job, "results")) == alike(expected)
    assert result_of(job)["metrics"] == expected["metrics"]
    assert (
        result_of(job)["baseline"]["provenance"]["model_version"]
        != result_of(job)["provenance"]["model_version"]
    )
    assert result_of(job)["comparison"]["outcome"] == "group"
    compared = written(work, job, "comparison")["outcomes"]
    assert compared["group"]["p_better"] <= 1
    told = result_of(job)["comparison"]["outcomes"]
    assert told.keys() == {"text", "image", "group", "group_match"}
    assert told["group_match"]["p_better"] == compared["group_match"]["p_better"]
    assert result_of(job)["metrics"]["group_match"]["chance"] == 1 / 2
    assert "d_prime" in result_of(job)["metrics"]["group_match"]
    shown = ("group_score", "group_match")
    assert result_of(job)["by_tag"] == {
        tag: {name: metrics[name] for name in shown} for tag, metrics in expected["by_tag"].items()
    }
    assert "<html" in (work.config.data_dir / result_of(job)["files"]["report"]).read_text()
    left = sorted(path.name for path in (work.config.jobs_dir / job.id / "1").iterdir())
    assert left == ["baseline.json", "comparison.json", "report.html", "results.json"]


def test_diffusion_score_is_that_of_the_command_line(
    work: Work, teacher_folder: Path, winoground_folder: Path, winoground_id: str, tmp_path: Path
) -> None:
    teacher = str(teacher_folder)
    asked = {"benchmark": "winoground", "data": winoground_id, "scorer": "diffusion", "teacher": teacher}
    job = work.evaluated(**asked, draws=2, score_error="epsilon")
    options = ["--scorer", "diffusion", "--teacher", teacher, "--draws", "2", "--score-error", "epsilon"]
    expected = by_command(tmp_path, "results", "winoground", "--data", str(winoground_folder), *options)
    assert alike(written(work, job, "results")) == alike(expected)


def test_version_can_be_measured(work: Work, base: Clip, winoground_id: str, tmp_path: Path) -> None:
    version = work.published(base, save_tuned(tmp_path / "delta", base))
    job = work.evaluated(benchmark="winoground", data=winoground_id, model=version)
    assert result_of(job)["provenance"]["model_version"] == version


def test_alias_that_was_made_after_a_job_does_not_change_what_the_job_means(work: Work, base: Clip) -> None:
    work.store.versions.register(unpublished_version(base))
    work.point("demo", base.version)
    assert loadable(work.store, work.config, "demo", param="model") == "demo"


def test_retrieval_finds_the_captions_of_a_data_set(
    work: Work, tiny_folder: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    data = work.add_ready(pairs_folder, "retrieval")
    model = f"local-dir:{tiny_folder}"
    job = work.evaluated(benchmark="retrieval", data=data, model=model)
    expected = by_command(
        tmp_path, "results", "retrieval", "--data", str(pairs_folder / "captions.json"), "--model", model
    )
    assert result_of(job)["metrics"] == expected["metrics"]


def test_scores_of_a_stopped_attempt_are_not_computed_again(
    work: Work, teacher_folder: Path, winoground_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        found = image_errors(*args, **options)
        computed.append(found.numel())
        return found

    monkeypatch.setattr("sds_clip.models.evaluation.teacher_scorer.image_errors", counted)
    asked = {"benchmark": "winoground", "data": winoground_id, "scorer": "diffusion", "draws": 2}
    job = work.submit({**asked, "teacher": str(teacher_folder)}, JobKind.EVALUATE)
    with work.claimed(JobKind.EVALUATE) as context:
        steps: list[int] = []

        def advance(step: int, steps_: int | None = None, **_: object) -> None:
            steps.append(step)
            if len(steps) > 3:
                context.stopping.set("a test says so")

        context.advance = advance  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            evaluate(context)
        work.store.leases.release(context.lease)
    assert 0 < len(computed) < 4
    work.take(evaluate)
    assert computed == [2 * 3] * 4
    assert work.get(job).status is JobStatus.SUCCEEDED
    assert [folder.name for folder in (work.config.jobs_dir / job.id).iterdir()] == ["2"]


def test_features_of_a_stopped_attempt_are_not_computed_again(
    work: Work, tiny_folder: Path, winoground_id: str, encoded: Encoded
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    job = work.submit(asked, JobKind.EVALUATE)
    with work.claimed(JobKind.EVALUATE) as context:

        def advance(*_: object, stage: str, **__: object) -> None:
            if stage == "scoring":
                context.stopping.set("a test says so")

        context.advance = advance  # type: ignore[method-assign, assignment]
        with pytest.raises(Stopped):
            evaluate(context)
        work.store.leases.release(context.lease)
    work.take(evaluate)
    assert work.get(job).status is JobStatus.SUCCEEDED
    assert encoded[0]["images"] > 0
    assert encoded[1] == {"images": 0, "texts": 0}


def test_evaluation_comes_as_far_whatever_was_encoded_before(
    work: Work, tiny_folder: Path, winoground_id: str
) -> None:
    """So an attempt that finds features of those before is further on than they were."""
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    first, second = (work.evaluated(**asked) for _ in range(2))
    rows = [work.get(job) for job in (first, second)]
    assert rows[0].furthest_step == rows[1].furthest_step > rows[0].step > 0


def test_report_names_both_models_and_the_files_as_the_caller_does(
    work: Work, tiny_folder: Path, base: Clip, winoground_folder: Path, tmp_path: Path
) -> None:
    version = work.published(base, save_tuned(tmp_path / "delta", base))
    folder = tmp_path / "damaged"
    shutil.copytree(winoground_folder, folder)
    (folder / "images" / "ex_0_img_0.png").write_bytes(b"no picture")
    data = work.add_ready(folder, "winoground")
    asked = {"benchmark": "winoground", "data": data, "max_bad_share": 0.5}
    job = work.evaluated(**asked, model=version, baseline=f"local-dir:{tiny_folder}")
    for name, model in (("results", version), ("baseline", f"local-dir:{tiny_folder}")):
        provenance = written(work, job, name)["provenance"]
        assert provenance["model"] == model
        assert provenance["items_left_out"]["0"].startswith("images/ex_0_img_0.png: ")
    assert (
        str(work.config.data_dir)
        not in (work.config.data_dir / result_of(job)["files"]["report"]).read_text()
    )


def test_data_set_that_is_gone_fails_the_job_with_the_field_s_name(work: Work, winoground_id: str) -> None:
    work.store.datasets.delete(winoground_id)
    work.submit({"benchmark": "winoground", "data": winoground_id, "model": "demo"}, JobKind.EVALUATE)
    assert work.fails(evaluate) == ("unusable_record", "data")

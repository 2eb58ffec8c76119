"""Evaluation jobs: the figures of the command line, and the files that a row names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Move
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.cli import main
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.teacher.diffusion_score import image_errors
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.errors import JobFailed, Stopped
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.references import loadable
from tests.checkpoints import save_tiny_clip
from tests.deltas import save_tuned
from tests.worker.in_process import claimed, published, run_job
from tests.worker.sets import add_ready

Submit = Callable[..., Job]


def run(config: WorkerConfig, store: Store, submit: Submit, **asked: object) -> Job:
    return run_job(config, store, submit(asked, JobKind.EVALUATE), evaluate)


def written(config: WorkerConfig, job: Job, name: str) -> Any:
    assert job.result is not None
    return json.loads((config.data_dir / job.result["files"][name]).read_text())


def by_command(folder: Path, name: str, *options: str) -> Any:
    assert main(["evaluate", *options, "--out", str(folder / "out"), "--device", "cpu"]) == 0
    return json.loads((folder / "out" / f"{name}.json").read_text())


def alike(results: dict[str, Any]) -> dict[str, Any]:
    """Results without where the data lie."""
    for item in results["items"]:
        item["images"] = [Path(image["path"]).name for image in item["images"]]
    return results


def test_figures_are_those_of_the_command_line_with_the_baseline_s_beside_them(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_folder: Path,
    winoground_id: str,
    tmp_path: Path,
) -> None:
    other = save_tiny_clip(tmp_path / "other", seed=7)
    model, baseline = f"local-dir:{tiny_folder}", f"local-dir:{other}"
    job = run(
        config, store, submit, benchmark="winoground", data=winoground_id, model=model, baseline=baseline
    )
    options = ["winoground", "--data", str(winoground_folder), "--model", model, "--baseline", baseline]
    expected = by_command(tmp_path, "results", *options)
    assert alike(written(config, job, "results")) == alike(expected)
    assert job.result is not None
    assert job.result["metrics"] == expected["metrics"]
    assert job.result["baseline"]["provenance"]["model_version"] != job.result["provenance"]["model_version"]
    assert job.result["comparison"]["outcome"] == "group"
    compared = written(config, job, "comparison")["outcomes"]
    assert compared["group"]["p_better"] <= 1
    told = job.result["comparison"]["outcomes"]
    assert told.keys() == {"text", "image", "group", "group_match"}
    assert told["group_match"]["p_better"] == compared["group_match"]["p_better"]
    assert job.result["metrics"]["group_match"]["chance"] == 1 / 2
    assert "d_prime" in job.result["metrics"]["group_match"]
    shown = ("group_score", "group_match")
    assert job.result["by_tag"] == {
        tag: {name: metrics[name] for name in shown} for tag, metrics in expected["by_tag"].items()
    }
    assert "<html" in (config.data_dir / job.result["files"]["report"]).read_text()
    left = sorted(path.name for path in (config.jobs_dir / job.id / "1").iterdir())
    assert left == ["baseline.json", "comparison.json", "report.html", "results.json"]


def test_diffusion_score_is_that_of_the_command_line(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    teacher_folder: Path,
    winoground_folder: Path,
    winoground_id: str,
    tmp_path: Path,
) -> None:
    teacher = str(teacher_folder)
    asked = {"benchmark": "winoground", "data": winoground_id, "scorer": "diffusion", "teacher": teacher}
    job = run(config, store, submit, **asked, draws=2, score_error="epsilon")
    options = [
        "--data",
        str(winoground_folder),
        "--scorer",
        "diffusion",
        "--teacher",
        teacher,
        "--draws",
        "2",
        "--score-error",
        "epsilon",
    ]
    expected = by_command(tmp_path, "results", "winoground", *options)
    assert alike(written(config, job, "results")) == alike(expected)


def test_version_can_be_measured(
    config: WorkerConfig, store: Store, submit: Submit, tiny_folder: Path, winoground_id: str, tmp_path: Path
) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    version = published(config, store, base, save_tuned(tmp_path / "delta", base))
    job = run(config, store, submit, benchmark="winoground", data=winoground_id, model=version)
    assert job.result is not None
    assert job.result["provenance"]["model_version"] == version


def test_alias_that_was_made_after_a_job_does_not_change_what_the_job_means(
    config: WorkerConfig, store: Store, tiny_folder: Path
) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    store.versions.register(unpublished_version(base))
    store.aliases.promote(Move("demo", "a test", "", 0), base.version)
    assert loadable(store, config, "demo", param="model") == "demo"


def test_retrieval_finds_the_captions_of_a_data_set(
    config: WorkerConfig, store: Store, submit: Submit, tiny_folder: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    data = add_ready(store, config, pairs_folder, "retrieval")
    model = f"local-dir:{tiny_folder}"
    job = run(config, store, submit, benchmark="retrieval", data=data, model=model)
    expected = by_command(
        tmp_path, "results", "retrieval", "--data", str(pairs_folder / "captions.json"), "--model", model
    )
    assert job.result is not None
    assert job.result["metrics"] == expected["metrics"]


def test_scores_of_a_stopped_attempt_are_not_computed_again(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    teacher_folder: Path,
    winoground_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        found = image_errors(*args, **options)
        computed.append(found.numel())
        return found

    monkeypatch.setattr("sds_clip.models.evaluation.teacher_scorer.image_errors", counted)
    asked = {"benchmark": "winoground", "data": winoground_id, "scorer": "diffusion", "draws": 2}
    job = submit({**asked, "teacher": str(teacher_folder)}, JobKind.EVALUATE)
    with claimed(config, store, JobKind.EVALUATE) as context:
        steps: list[int] = []

        def advance(step: int, steps_: int | None = None, **_: object) -> None:
            steps.append(step)
            if len(steps) > 3:
                context.stopping.set("a test says so")

        context.advance = advance  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            evaluate(context)
        store.leases.release(context.lease)
    assert 0 < len(computed) < 4
    with claimed(config, store, JobKind.EVALUATE) as context:
        evaluate(context)
    assert computed == [2 * 3] * 4
    assert store.jobs.get(job.id).status is JobStatus.SUCCEEDED
    assert [folder.name for folder in (config.jobs_dir / job.id).iterdir()] == ["2"]


def test_features_of_a_stopped_attempt_are_not_computed_again(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = submit(
        {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"},
        JobKind.EVALUATE,
    )
    encoded: list[dict[str, int]] = []
    close = ClipScorer.close

    def closing(scorer: ClipScorer) -> None:
        encoded.append(scorer.encoded)
        close(scorer)

    monkeypatch.setattr(ClipScorer, "close", closing)
    with claimed(config, store, JobKind.EVALUATE) as context:

        def advance(*_: object, stage: str, **__: object) -> None:
            if stage == "scoring":
                context.stopping.set("a test says so")

        context.advance = advance  # type: ignore[method-assign, assignment]
        with pytest.raises(Stopped):
            evaluate(context)
        store.leases.release(context.lease)
    with claimed(config, store, JobKind.EVALUATE) as context:
        evaluate(context)
    assert store.jobs.get(job.id).status is JobStatus.SUCCEEDED
    assert encoded[0]["images"] > 0
    assert encoded[1] == {"images": 0, "texts": 0}


def test_evaluation_comes_as_far_whatever_was_encoded_before(
    config: WorkerConfig, store: Store, submit: Submit, tiny_folder: Path, winoground_id: str
) -> None:
    """So an attempt that finds features of those before is further on than they were."""
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    first, second = (run(config, store, submit, **asked) for _ in range(2))
    rows = [store.jobs.get(job.id) for job in (first, second)]
    assert rows[0].furthest_step == rows[1].furthest_step > rows[0].step > 0


def test_report_names_both_models_and_the_files_as_the_caller_does(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_folder: Path,
    tmp_path: Path,
) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    version = published(config, store, base, save_tuned(tmp_path / "delta", base))
    folder = tmp_path / "damaged"
    shutil.copytree(winoground_folder, folder)
    (folder / "images" / "ex_0_img_0.png").write_bytes(b"no picture")
    data = add_ready(store, config, folder, "winoground")
    asked = {"benchmark": "winoground", "data": data, "max_bad_share": 0.5}
    job = run(config, store, submit, **asked, model=version, baseline=f"local-dir:{tiny_folder}")
    for name, model in (("results", version), ("baseline", f"local-dir:{tiny_folder}")):
        provenance = written(config, job, name)["provenance"]
        assert provenance["model"] == model
        assert provenance["items_left_out"]["0"].startswith("images/ex_0_img_0.png: ")
    assert job.result is not None
    assert str(config.data_dir) not in (config.data_dir / job.result["files"]["report"]).read_text()


def test_data_set_that_is_gone_fails_the_job_with_the_field_s_name(
    config: WorkerConfig, store: Store, submit: Submit, winoground_id: str
) -> None:
    store.datasets.delete(winoground_id)
    submit({"benchmark": "winoground", "data": winoground_id, "model": "demo"}, JobKind.EVALUATE)
    with claimed(config, store, JobKind.EVALUATE) as context, pytest.raises(JobFailed) as caught:
        evaluate(context)
    assert (caught.value.error.code, caught.value.error.param) == ("unusable_record", "data")

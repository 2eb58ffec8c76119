"""A fine-tuning job's own course: places, figures, promotion, and an alias that moves meanwhile."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import sds_clip.worker.finetune_job
from sds_clip.app.errors import DiskReserve, InvalidRequest
from sds_clip.app.jobs import job_limits
from sds_clip.app.registry.manifest import verify
from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.removal import remove_version_files
from sds_clip.app.store.records import Job, Level, VersionStatus
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.training.config import parse_config
from sds_clip.models.training.parts import load_parts
from sds_clip.models.training.run import train
from sds_clip.worker.context import JobContext
from sds_clip.worker.errors import Stopped
from sds_clip.worker.finetune_job import finetune
from sds_clip.worker.job_process import _attempt
from sds_clip.worker.protocol import Exit
from tests.databases import on_both, on_both_if_long
from tests.deltas import save_tuned
from tests.training import PLACE, changed, save_coco
from tests.worker.sets import save_winoground_of
from tests.worker.work import Asked, Work, before_success, if_better, result_of


@pytest.mark.parametrize("trainable", ["layernorm", "lora"])
def test_job_trains_what_the_command_line_trains(
    work: Work, tuning: Asked, teacher_folder: Path, pairs_folder: Path, tmp_path: Path, trainable: str
) -> None:
    options = {
        "teacher": str(teacher_folder),
        "objective": "sds-clip",
        "sds_batch_size": 2,
        "trainable": trainable,
    }
    job = work.finetuned(tuning | options | {"validation_data": tuning["training_data"]})
    own = {name: value for name, value in tuning.items() if name != "training_data"} | options
    expected = parse_config({**own, "device": "cpu", "data": pairs_folder / "captions.json"})
    train(expected, load_parts(expected, PLACE), tmp_path / "out", PLACE)
    assert (work.config.features_dir / "captions.sqlite3").is_file()
    folder = work.config.versions_dir / str(job.result_version)
    found = load_file(folder / "delta.safetensors")
    wanted = changed(tmp_path / "out")
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in found)
    assert load_clip(str(folder)).version == job.result_version
    assert result_of(job)["metrics"].keys() >= {"validation_clip", "base_validation_clip"}
    report = work.config.data_dir / result_of(job)["files"]["report"]
    assert "Gradient share" in report.read_text("utf-8")
    assert str(pairs_folder) not in report.read_text("utf-8")
    assert [
        file.name for file in report.parent.iterdir() if file.suffix == ".html" or file.name == "run"
    ] == ["report.html"]
    points = work.store.events.metrics(job.id)
    assert points[-1].step == 6
    assert points[-1].values.keys() >= {"loss", "sds", "validation_clip"}


@on_both_if_long
def test_every_logged_point_is_kept_however_seldom_points_are_sent(work: Work, tuning: Asked) -> None:
    job = work.finetuned(tuning | {"steps": 60}, changes={"report_every_s": 3600})
    points = work.store.events.metrics(job.id)
    assert [point.step for point in points] == list(range(1, 61))
    assert all("loss" in point.values for point in points)


@on_both_if_long
def test_points_that_a_killed_attempt_did_not_send_are_sent_by_the_next_one_from_its_log(
    work: Work, tuning: Asked
) -> None:
    job = work.submit(tuning | {"steps": 6, "save_every": 4})
    with work.claimed(report_every_s=3600) as context:
        context.should_stop = lambda: context._step == 4  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            finetune(context)
        assert context.reporter._points.keys() == {1, 2, 3, 4}
        context.reporter._points.clear()
    work.store.leases.release(context.lease)
    work.take(finetune)
    assert [point.step for point in work.store.events.metrics(job.id)] == [1, 2, 3, 4, 5, 6]


@on_both_if_long
def test_disk_that_comes_to_its_reserve_pauses_the_job_at_its_last_checkpoint_and_nothing_is_lost(
    work: Work, tuning: Asked
) -> None:
    version = work.finetuned(tuning).result_version
    job = work.submit(tuning)
    with work.claimed() as context:

        def fill_the_disk() -> bool:
            if context._step == 3:
                context.config = replace(work.config, disk_reserve_bytes=2**62)
            return False

        context.should_stop = fill_the_disk  # type: ignore[method-assign]
        assert _attempt(context, lambda kind: finetune) is Exit.RELEASED
        checkpoints = context.folder.run / "checkpoints"
        assert [folder.name for folder in checkpoints.iterdir()] == ["step-00000002"]
    assert work.get(job).status is JobStatus.PAUSED
    assert work.pause_reason(job).code == "disk_reserve"
    work.store.jobs.request_resume(job.id)
    work.take(finetune)
    assert work.get(job).result_version == version
    assert work.resumed(job) == [2]


def test_job_does_not_begin_to_train_on_a_disk_that_is_at_its_reserve(work: Work, tuning: Asked) -> None:
    work.submit(tuning)
    with work.claimed(disk_reserve_bytes=2**62) as context, pytest.raises(DiskReserve):
        finetune(context)
    assert not context.folder.log.exists()


def test_job_whose_checkpoint_alone_is_over_the_bytes_of_a_job_fails_with_that_reason(
    work: Work, tuning: Asked
) -> None:
    job = work.submit(tuning)
    with work.claimed(max_job_bytes=2000) as context:
        _attempt(context, lambda kind: finetune)
        assert not list(context.folder.run.glob("checkpoints/*"))
    assert work.get(job).status is JobStatus.FAILED
    assert (work.error(job).code, work.error(job).retryable) == ("checkpoint_too_large", False)


@pytest.mark.parametrize(
    ("length", "limits", "param"),
    [
        ({"epochs": 100.0}, {"MAX_STEPS": 200}, "epochs"),
        ({"steps": 60}, {"MAX_LOG_POINTS": 59}, "log_every"),
    ],
)
def test_worker_keeps_to_the_limits_whatever_was_accepted(
    work: Work,
    length: Asked,
    limits: dict[str, int],
    param: str,
    tuning: Asked,
    pairs_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """24 pairs in batches of 8: 3 steps an epoch, which nobody knew while they were being checked."""
    del tuning["steps"]
    work.submit(tuning | length | {"training_data": work.add_ready(pairs_folder, "pairs", usable=24)})
    for name, most in limits.items():
        monkeypatch.setattr(job_limits, name, most)
    with pytest.raises(InvalidRequest) as raised:
        work.take(finetune)
    assert (raised.value.code, raised.value.param) == ("over_limit", f"hyperparameters.{param}")


def test_log_stays_with_the_version_whose_id_is_the_hash_of_its_weights_alone(
    work: Work, tuning: Asked, base: Clip
) -> None:
    job = work.finetuned(tuning)
    folder = work.config.versions_dir / str(job.result_version)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    verify(folder, folder.name)
    assert load_clip(f"local-dir:{folder}", device="cpu", precision="float32").version == folder.name


def test_validation_pairs_may_lack_what_their_own_check_allowed(
    work: Work, tuning: Asked, tmp_path: Path
) -> None:
    files = save_coco(tmp_path / "held-out", 10).parent
    (files / "7.png").unlink()
    held_out = work.add_ready(files, "pairs", max_bad_share=0.1)
    job = work.finetuned(tuning | {"validation_data": held_out})
    assert "validation_clip" in result_of(job)["metrics"]


def test_version_over_a_version_names_it_as_its_base(
    work: Work, tuning: Asked, base: Clip, tmp_path: Path
) -> None:
    first = work.published(base, save_tuned(tmp_path / "delta", base))
    job = work.finetuned(tuning | {"base": first})
    version = work.store.versions.get(str(job.result_version))
    assert (version.base, version.base_version) == (first, first)
    assert str(work.config.data_dir) not in str(version.description)
    loaded = load_clip(
        f"local-dir:{work.config.data_dir / str(version.folder)}", device="cpu", precision="float32"
    )
    assert loaded.version == version.id


@on_both_if_long
def test_promote_always_makes_the_alias_and_the_audit_tells_by_which_job(work: Work, tuning: Asked) -> None:
    job = work.finetuned(tuning | {"promote": "always", "alias": "live"})
    alias = work.store.aliases.get("live")
    assert (alias.version, alias.generation) == (job.result_version, 1)
    [line] = work.store.aliases.promotions("live")
    assert (line.job_id, line.from_version, line.forced) == (job.id, None, False)
    assert result_of(job)["promotion"]["promoted"] is True


@on_both_if_long
@pytest.mark.parametrize("when", ["before the decision", "after the decision"])
def test_job_leaves_a_locked_alias_succeeds_and_says_why(
    work: Work, tuning: Asked, base: Clip, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    work.store.versions.register(unpublished_version(base))
    work.point("live", base.version)
    succeed = JobContext.succeed

    def lock_first(context: JobContext, **ending: Any) -> Job:
        work.store.aliases.lock("live", "ops", "release freeze")
        return succeed(context, **ending)

    if when == "before the decision":
        work.store.aliases.lock("live", "ops", "release freeze")
    else:
        monkeypatch.setattr(JobContext, "succeed", lock_first)
    job = work.finetuned(tuning | {"promote": "always", "alias": "live"})
    assert job.status is JobStatus.SUCCEEDED
    told = result_of(job)["promotion"]
    assert (told["promoted"], told["locked"]) == (False, True)
    for part in ("requested", "alias live is locked", "ops", "release freeze"):
        assert part in told["why"]
    assert work.store.aliases.get("live").version == base.version
    assert work.store.versions.get(str(job.result_version)).job_id == job.id


@pytest.mark.parametrize(("owner", "promoted"), [("alice", True), ("bob", False), ("", False)])
def test_job_of_a_key_promotes_to_an_alias_that_the_key_still_has(
    work: Work, tuning: Asked, base: Clip, owner: str, promoted: bool
) -> None:
    work.store.versions.register(unpublished_version(base))
    work.point("live", base.version, give_to=owner)

    asked = tuning | {"promote": "always", "alias": "live"}
    job = work.finetuned(asked, owner="alice", by_admin=False)

    assert result_of(job)["promotion"]["promoted"] is promoted
    assert work.store.aliases.get("live").version == (job.result_version if promoted else base.version)
    assert work.store.versions.get(str(job.result_version)).owner == "alice"


def test_version_that_is_not_significantly_better_is_kept_and_not_promoted(
    work: Work, tuning: Asked, winoground_id: str, base: Clip
) -> None:
    """Four items cannot give a p under 0.05: the least possible is 1/16."""
    work.store.versions.register(unpublished_version(base))
    work.point("default", base.version)
    job = work.finetuned(if_better(tuning, winoground_id))
    assert work.store.aliases.get("default").version == base.version
    told = result_of(job)["promotion"]
    assert told["promoted"] is False
    assert told["compared_with"] == base.version
    name = f"winoground ({winoground_id})"
    gain = told["winoground"][name]
    assert gain["group_match"]["items"] == 4
    measured = result_of(job)["evaluations"][name]["metrics"]
    assert [gain[figure]["model"] for figure in gain if figure != "under_chance"] == [
        measured[figure]["value"] for figure in ("group_match", "group_score")
    ]
    under = {
        figure
        for figure in ("group_match", "group_score")
        if measured[figure]["value"] < measured[figure]["chance"]
    }
    assert {text.split()[0] for text in gain["under_chance"] if "new version" in text} == under
    assert all(each in told["why"] for each in gain["under_chance"])
    assert work.store.versions.get(str(job.result_version)).job_id == job.id
    assert told["why"] in [event.message for event in work.events(job)]


@pytest.mark.long
@on_both
def test_better_version_is_promoted_and_one_after_an_alias_moved_is_compared_anew(
    work: Work, tuning: Asked, pairs_folder: Path, base: Clip, tmp_path: Path
) -> None:
    """Somebody moves the alias after it was looked at: the first decision is void, and the second is on the
    new holder. With every p allowed and any loss, a gain in GroupMatch decides."""
    other = work.published(base, save_tuned(tmp_path / "delta", base, seed=3))
    work.point("default", base.version)
    learnt = save_winoground_of(pairs_folder, tmp_path / "winoground")
    asked = {
        "thresholds": {"max_p": 1.0, "max_loss": 1.0},
        "steps": 150,
        "batch_size": 24,
        "lr": 0.003,
        "trainable": "all",
    }
    job = work.submit(if_better(tuning, work.add_ready(learnt, "winoground")) | asked)
    tried: list[Any] = []

    def move(ending: Asked) -> None:
        tried.append(ending["result"]["promotion"]["compared_with"])
        if len(tried) == 1 and ending["promotion"] is not None:
            work.point("default", other, 1)

    with work.claimed() as context:
        before_success(context, move)
        finetune(context)
    ended = work.get(job)
    told = result_of(ended)["promotion"]
    assert tried == [base.version, other]
    assert told["compared_with"] == other
    alias = work.store.aliases.get("default")
    assert (alias.version == ended.result_version) is told["promoted"]


def test_alias_that_is_moved_and_its_version_deleted_while_that_is_loaded_is_looked_at_again(
    work: Work, tuning: Asked, winoground_id: str, base: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = work.published(base, save_tuned(tmp_path / "delta", base, seed=3))
    work.point("default", other)
    of_version = sds_clip.worker.finetune_job.of_version

    def delete_first(*arguments: Any, **named: Any) -> str:
        work.point("default", base.version, 1)
        work.store.versions.delete(other)
        return of_version(*arguments, **named)

    monkeypatch.setattr(sds_clip.worker.finetune_job, "of_version", delete_first)
    job = work.finetuned(if_better(tuning, winoground_id))
    assert result_of(job)["promotion"]["compared_with"] == base.version


@on_both_if_long
def test_files_removed_before_the_version_is_registered_are_published_again(
    work: Work, tuning: Asked
) -> None:
    """A job makes weights that are being deleted at the same time."""
    asked = tuning | {"promote": "always", "alias": "live"}
    version = str(work.finetuned(tuning).result_version)
    work.store.versions.delete(version)
    job = work.submit(asked)
    removed: list[bool] = []

    def remove(_: Asked) -> None:
        removed.append(not removed and remove_version_files(work.store, work.config.versions_dir / version))

    with work.claimed() as context:
        before_success(context, remove)
        finetune(context)
    assert removed == [True, False]
    assert work.get(job).result_version == work.store.aliases.get("live").version == version
    assert work.store.versions.get(version).status is VersionStatus.READY
    verify(work.config.versions_dir / version, version)


def test_base_of_the_operator_s_that_was_deleted_is_made_known_again(
    work: Work, tuning: Asked, base: Clip
) -> None:
    """Before the job ends, and once more as it ends."""
    work.store.versions.register(unpublished_version(base))
    work.store.versions.delete(base.version)
    job = work.submit(tuning)
    known: list[VersionStatus] = []

    def delete(_: Asked) -> None:
        known.append(work.store.versions.get(base.version).status)
        if len(known) == 1:
            work.store.versions.delete(base.version)

    with work.claimed() as context:
        before_success(context, delete)
        finetune(context)
    assert known == [VersionStatus.READY, VersionStatus.READY]
    made = work.store.versions.get(str(work.get(job).result_version))
    assert made.base_version == base.version
    assert work.store.versions.get(base.version).status is VersionStatus.READY


def test_lease_is_kept_until_the_job_has_ended_and_not_while_its_files_are_removed(
    work: Work, tuning: Asked
) -> None:
    job = work.submit(tuning)
    with work.claimed() as context:
        seen: list[tuple[JobStatus, bool]] = []
        context.stop_renewing = lambda: seen.append((work.get(job).status, context.folder.run.exists()))
        finetune(context)
        assert seen == [(JobStatus.SUCCEEDED, True)]
        assert not context.folder.run.exists()


@on_both_if_long
def test_job_that_was_cancelled_as_it_ended_leaves_no_version(work: Work, tuning: Asked) -> None:
    job = work.submit(tuning | {"promote": "always"})
    with work.claimed() as context:
        before_success(context, lambda _: work.store.jobs.request_cancel(job.id))
        finetune(context)
    assert work.get(job).status is JobStatus.CANCELLED
    assert all(version.folder is None for version in work.store.versions.list().items)
    assert work.store.aliases.all() == ()


def test_training_that_changes_nothing_fails_the_job(work: Work, tuning: Asked) -> None:
    work.submit(tuning | {"lr": 1e-30, "steps": 1})
    assert work.fails(finetune)[0] == "nothing_learned"


def test_base_that_was_deleted_fails_the_job_with_the_field_s_name(
    work: Work, tuning: Asked, base: Clip, tmp_path: Path
) -> None:
    first = work.published(base, save_tuned(tmp_path / "delta", base))
    work.store.versions.delete(first)
    work.submit(tuning | {"base": first})
    assert work.fails(finetune) == ("unusable_record", "base")
    assert work.store.leases.claim(JobKind.FINETUNE, "x", 1) is None


def test_job_in_which_the_teacher_had_no_say_ends_by_saying_so(
    work: Work, tuning: Asked, teacher_folder: Path
) -> None:
    options = {"teacher": str(teacher_folder), "objective": "sds-clip", "sds_weight": 1e-6}
    job = work.finetuned(tuning | options)
    [warning] = result_of(job)["warnings"]
    assert warning["code"] == "teacher_had_no_say"
    assert warning["figures"]["teacher_gradient_share"] < 0.05
    [event] = [event for event in work.events(job) if event.level is Level.WARNING]
    assert (event.message, (event.data or {})["code"]) == (warning["message"], "teacher_had_no_say")
    assert result_of(work.finetuned(tuning))["warnings"] == []

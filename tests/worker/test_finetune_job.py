"""A fine-tuning job's own course: places, figures, promotion, and an alias that moves meanwhile."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import sds_clip.worker.finetune_job
from sds_clip.app.errors import DiskReserve, InvalidRequest
from sds_clip.app.jobs import limits as job_limits
from sds_clip.app.registry.manifest import verify
from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.removal import remove_version_files
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Level, Move, VersionStatus
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.training.config import parse_config
from sds_clip.models.training.parts import load_parts
from sds_clip.models.training.run import train
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.context import JobContext
from sds_clip.worker.errors import JobFailed, Stopped
from sds_clip.worker.finetune_job import finetune
from sds_clip.worker.job_process import _attempt
from sds_clip.worker.protocol import Exit
from tests.databases import on_both, on_both_if_long
from tests.deltas import save_tuned
from tests.training import PLACE, changed, save_coco
from tests.worker.in_process import claimed, published, run_job
from tests.worker.sets import add_ready, save_winoground_of

Submit = Callable[..., Job]


@pytest.fixture(scope="session")
def base(tiny_folder: Path) -> Clip:
    return load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")


def run(config: WorkerConfig, store: Store, submit: Submit, asked: dict[str, Any]) -> Job:
    return run_job(config, store, submit(asked), finetune)


def promotion_of(job: Job) -> Any:
    assert job.result is not None
    return job.result["promotion"]


def test_job_trains_what_the_command_line_trains(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    teacher_folder: Path,
    pairs_folder: Path,
    tmp_path: Path,
) -> None:
    options = {"teacher": str(teacher_folder), "objective": "sds-clip", "device": "cpu", "sds_batch_size": 2}
    asked = finetune_config | options
    del asked["device"]
    job = run(config, store, submit, asked | {"validation_data": finetune_config["training_data"]})
    own = {name: value for name, value in finetune_config.items() if name != "training_data"} | options
    expected = parse_config({**own, "data": pairs_folder / "captions.json"})
    train(expected, load_parts(expected, PLACE), tmp_path / "out", PLACE)
    folder = config.versions_dir / str(job.result_version)
    found = load_file(folder / "delta.safetensors")
    wanted = changed(tmp_path / "out")
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in found)
    assert job.result is not None
    assert job.result["metrics"].keys() >= {"validation_clip", "base_validation_clip"}
    report = config.data_dir / job.result["files"]["report"]
    assert "Gradient share" in report.read_text("utf-8")
    assert str(pairs_folder) not in report.read_text("utf-8")
    assert [
        file.name for file in report.parent.iterdir() if file.suffix == ".html" or file.name == "run"
    ] == ["report.html"]
    points = store.events.metrics(job.id)
    assert points[-1].step == 6
    assert points[-1].values.keys() >= {"loss", "sds", "validation_clip"}


@on_both_if_long
def test_every_logged_point_is_kept_however_seldom_points_are_sent(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    job = run(replace(config, report_every_s=3600), store, submit, finetune_config | {"steps": 60})
    points = store.events.metrics(job.id)
    assert [point.step for point in points] == list(range(1, 61))
    assert all("loss" in point.values for point in points)


@on_both_if_long
def test_points_that_a_killed_attempt_did_not_send_are_sent_by_the_next_one_from_its_log(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    job = submit(finetune_config | {"steps": 6, "save_every": 4})
    with claimed(replace(config, report_every_s=3600), store) as context:
        context.should_stop = lambda: context._step == 4  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            finetune(context)
        assert context.reporter._points.keys() == {1, 2, 3, 4}
        context.reporter._points.clear()
    store.leases.release(context.lease)
    with claimed(config, store) as context:
        finetune(context)
    assert [point.step for point in store.events.metrics(job.id)] == [1, 2, 3, 4, 5, 6]


@on_both_if_long
def test_disk_that_comes_to_its_reserve_pauses_the_job_at_its_last_checkpoint_and_nothing_is_lost(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    version = run(config, store, submit, finetune_config).result_version
    job = submit(finetune_config)
    with claimed(config, store) as context:

        def fill_the_disk() -> bool:
            if context._step == 3:
                context.config = replace(config, disk_reserve_bytes=2**62)
            return False

        context.should_stop = fill_the_disk  # type: ignore[method-assign]
        assert _attempt(context, lambda kind: finetune) is Exit.RELEASED
        checkpoints = context.folder.run / "checkpoints"
        assert [folder.name for folder in checkpoints.iterdir()] == ["step-00000002"]
    paused = store.jobs.get(job.id)
    assert paused.pause_reason is not None
    assert (paused.status, paused.pause_reason.code) == (JobStatus.PAUSED, "disk_reserve")
    store.jobs.request_resume(job.id)
    with claimed(config, store) as context:
        finetune(context)
    assert store.jobs.get(job.id).result_version == version
    resumed = [
        event.data for event in store.events.events(job.id) if event.data and set(event.data) == {"step"}
    ]
    assert resumed == [{"step": 2}]


def test_job_does_not_begin_to_train_on_a_disk_that_is_at_its_reserve(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    submit(finetune_config)
    full = replace(config, disk_reserve_bytes=2**62)
    with claimed(full, store) as context, pytest.raises(DiskReserve):
        finetune(context)
    assert not context.folder.log.exists()


def test_job_whose_checkpoint_alone_is_over_the_bytes_of_a_job_fails_with_that_reason(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    job = submit(finetune_config)
    with claimed(replace(config, max_job_bytes=2000), store) as context:
        _attempt(context, lambda kind: finetune)
        assert not list(context.folder.run.glob("checkpoints/*"))
    failed = store.jobs.get(job.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.retryable) == (
        JobStatus.FAILED,
        "checkpoint_too_large",
        False,
    )


@pytest.mark.parametrize(
    ("asked", "limits", "param"),
    [
        ({"steps": None, "epochs": 100.0}, {"MAX_STEPS": 200}, "epochs"),
        ({"steps": 60}, {"MAX_LOG_POINTS": 59}, "log_every"),
    ],
)
def test_worker_keeps_to_the_limits_whatever_was_accepted(
    asked: dict[str, Any],
    limits: dict[str, int],
    param: str,
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    pairs_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """24 pairs in batches of 8: 3 steps an epoch, which nobody knew while they were being checked."""
    data = {"training_data": add_ready(store, config, pairs_folder, "pairs", usable=24)}
    submit({name: value for name, value in (finetune_config | asked | data).items() if value is not None})
    for name, most in limits.items():
        monkeypatch.setattr(job_limits, name, most)
    with claimed(config, store) as context, pytest.raises(InvalidRequest) as raised:
        finetune(context)
    assert (raised.value.code, raised.value.param) == ("over_limit", f"hyperparameters.{param}")


def test_log_stays_with_the_version_whose_id_is_the_hash_of_its_weights_alone(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any], base: Clip
) -> None:
    job = run(config, store, submit, finetune_config)
    folder = config.versions_dir / str(job.result_version)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    verify(folder, folder.name)
    assert load_clip(f"local-dir:{folder}", device="cpu", precision="float32").version == folder.name


def test_validation_pairs_may_lack_what_their_own_check_allowed(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any], tmp_path: Path
) -> None:
    files = save_coco(tmp_path / "held-out", 10).parent
    (files / "7.png").unlink()
    held_out = add_ready(store, config, files, "pairs", max_bad_share=0.1)
    job = run(config, store, submit, finetune_config | {"validation_data": held_out})
    assert job.result is not None
    assert "validation_clip" in job.result["metrics"]


def test_version_over_a_version_names_it_as_its_base(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    base: Clip,
    tmp_path: Path,
) -> None:
    first = published(config, store, base, save_tuned(tmp_path / "delta", base))
    job = run(config, store, submit, finetune_config | {"base": first})
    version = store.versions.get(str(job.result_version))
    assert (version.base, version.base_version) == (first, first)
    assert str(config.data_dir) not in str(version.description)
    loaded = load_clip(
        f"local-dir:{config.data_dir / str(version.folder)}", device="cpu", precision="float32"
    )
    assert loaded.version == version.id


@on_both_if_long
def test_promote_always_makes_the_alias_and_the_audit_tells_by_which_job(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    job = run(config, store, submit, finetune_config | {"promote": "always", "alias": "live"})
    alias = store.aliases.get("live")
    assert (alias.version, alias.generation) == (job.result_version, 1)
    [line] = store.aliases.promotions("live")
    assert (line.job_id, line.from_version, line.forced) == (job.id, None, False)
    assert promotion_of(job)["promoted"] is True


@on_both_if_long
@pytest.mark.parametrize("when", ["before the decision", "after the decision"])
def test_job_leaves_a_locked_alias_succeeds_and_says_why(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    base: Clip,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    store.versions.register(unpublished_version(base))
    store.aliases.promote(Move("live", "a test", "", 0), base.version)
    succeed = JobContext.succeed

    def lock_first(context: JobContext, **ending: Any) -> Job:
        store.aliases.lock("live", "ops", "release freeze")
        return succeed(context, **ending)

    if when == "before the decision":
        store.aliases.lock("live", "ops", "release freeze")
    else:
        monkeypatch.setattr(JobContext, "succeed", lock_first)
    job = run(config, store, submit, finetune_config | {"promote": "always", "alias": "live"})
    assert job.status is JobStatus.SUCCEEDED
    told = promotion_of(job)
    assert (told["promoted"], told["locked"]) == (False, True)
    for part in ("requested", "alias live is locked", "ops", "release freeze"):
        assert part in told["why"]
    assert store.aliases.get("live").version == base.version
    assert store.versions.get(str(job.result_version)).job_id == job.id


@pytest.mark.parametrize(("owner", "promoted"), [("alice", True), ("bob", False), ("", False)])
def test_job_of_a_key_promotes_to_an_alias_that_the_key_still_has(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    tiny_folder: Path,
    owner: str,
    promoted: bool,
) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    store.versions.register(unpublished_version(base))
    store.aliases.promote(Move("live", "a test", "", 0, give_to=owner), base.version)

    asked = finetune_config | {"promote": "always", "alias": "live"}
    job = run_job(config, store, submit(asked, owner="alice", by_admin=False), finetune)

    assert promotion_of(job)["promoted"] is promoted
    assert store.aliases.get("live").version == (job.result_version if promoted else base.version)
    assert store.versions.get(str(job.result_version)).owner == "alice"


def test_version_that_is_not_significantly_better_is_kept_and_not_promoted(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    winoground_id: str,
    base: Clip,
) -> None:
    """Four items cannot give a p under 0.05: the least possible is 1/16."""
    store.versions.register(unpublished_version(base))
    store.aliases.promote(Move("default", "a test", "", 0), base.version)
    asked = {
        "promote": "if_better",
        "evaluate": [{"benchmark": "winoground", "data": winoground_id}],
        "validation_data": finetune_config["training_data"],
    }
    job = run(config, store, submit, finetune_config | asked)
    assert store.aliases.get("default").version == base.version
    told = promotion_of(job)
    assert told["promoted"] is False
    assert told["compared_with"] == base.version
    name = f"winoground ({winoground_id})"
    gain = told["winoground"][name]
    assert gain["group_match"]["items"] == 4
    assert job.result is not None
    measured = job.result["evaluations"][name]["metrics"]
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
    assert store.versions.get(str(job.result_version)).job_id == job.id
    assert told["why"] in [event.message for event in store.events.events(job.id)]


@pytest.mark.long
@on_both
def test_better_version_is_promoted_and_one_after_an_alias_moved_is_compared_anew(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    pairs_folder: Path,
    base: Clip,
    tmp_path: Path,
) -> None:
    """Somebody moves the alias after it was looked at: the first decision is void, and the second is on the
    new holder. With every p allowed and any loss, a gain in GroupMatch decides."""
    other = published(config, store, base, save_tuned(tmp_path / "delta", base, seed=3))
    store.aliases.promote(Move("default", "a test", "", 0), base.version)
    learnt = save_winoground_of(pairs_folder, tmp_path / "winoground")
    asked = {
        "promote": "if_better",
        "evaluate": [{"benchmark": "winoground", "data": add_ready(store, config, learnt, "winoground")}],
        "validation_data": finetune_config["training_data"],
        "thresholds": {"max_p": 1.0, "max_loss": 1.0},
        "steps": 150,
        "batch_size": 24,
        "lr": 0.003,
        "trainable": "all",
    }
    job = submit(finetune_config | asked)
    with claimed(config, store) as context:
        tried: list[Any] = []
        succeed = context.succeed

        def move_first(**ending: Any) -> Job:
            tried.append(ending["result"]["promotion"]["compared_with"])
            if len(tried) == 1 and ending["promotion"] is not None:
                store.aliases.promote(Move("default", "somebody", "", 1), other)
            return succeed(**ending)

        context.succeed = move_first  # type: ignore[method-assign]
        finetune(context)
    ended = store.jobs.get(job.id)
    told = promotion_of(ended)
    assert tried == [base.version, other]
    assert told["compared_with"] == other
    alias = store.aliases.get("default")
    assert (alias.version == ended.result_version) is told["promoted"]


def test_alias_that_is_moved_and_its_version_deleted_while_that_is_loaded_is_looked_at_again(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    winoground_id: str,
    base: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = published(config, store, base, save_tuned(tmp_path / "delta", base, seed=3))
    store.aliases.promote(Move("default", "a test", "", 0), other)
    of_version = sds_clip.worker.finetune_job.of_version

    def delete_first(*arguments: Any, **named: Any) -> str:
        store.aliases.promote(Move("default", "somebody", "", 1), base.version)
        store.versions.delete(other)
        return of_version(*arguments, **named)

    monkeypatch.setattr(sds_clip.worker.finetune_job, "of_version", delete_first)
    asked = {
        "promote": "if_better",
        "evaluate": [{"benchmark": "winoground", "data": winoground_id}],
        "validation_data": finetune_config["training_data"],
    }
    job = run(config, store, submit, finetune_config | asked)
    assert promotion_of(job)["compared_with"] == base.version


@on_both_if_long
def test_files_removed_before_the_version_is_registered_are_published_again(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    """A job makes weights that are being deleted at the same time."""
    asked = finetune_config | {"promote": "always", "alias": "live"}
    version = str(run(config, store, submit, finetune_config).result_version)
    store.versions.delete(version)
    job = submit(asked)
    with claimed(config, store) as context:
        removed: list[bool] = []
        succeed = context.succeed

        def remove_first(**ending: Any) -> Job:
            removed.append(not removed and remove_version_files(store, config.versions_dir / version))
            return succeed(**ending)

        context.succeed = remove_first  # type: ignore[method-assign]
        finetune(context)
    assert removed == [True, False]
    assert store.jobs.get(job.id).result_version == store.aliases.get("live").version == version
    assert store.versions.get(version).status is VersionStatus.READY
    verify(config.versions_dir / version, version)


def test_base_of_the_operator_s_that_was_deleted_is_made_known_again(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any], base: Clip
) -> None:
    """Before the job ends, and once more as it ends."""
    store.versions.register(unpublished_version(base))
    store.versions.delete(base.version)
    job = submit(finetune_config)
    with claimed(config, store) as context:
        known: list[VersionStatus] = []
        succeed = context.succeed

        def delete_first(**ending: Any) -> Job:
            known.append(store.versions.get(base.version).status)
            if len(known) == 1:
                store.versions.delete(base.version)
            return succeed(**ending)

        context.succeed = delete_first  # type: ignore[method-assign]
        finetune(context)
    assert known == [VersionStatus.READY, VersionStatus.READY]
    made = store.versions.get(str(store.jobs.get(job.id).result_version))
    assert made.base_version == base.version
    assert store.versions.get(base.version).status is VersionStatus.READY


def test_lease_is_kept_until_the_job_has_ended_and_not_while_its_files_are_removed(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    job = submit(finetune_config)
    with claimed(config, store) as context:
        seen: list[tuple[JobStatus, bool]] = []
        context.stop_renewing = lambda: seen.append(
            (store.jobs.get(job.id).status, context.folder.run.exists())
        )
        finetune(context)
        assert seen == [(JobStatus.SUCCEEDED, True)]
        assert not context.folder.run.exists()


@on_both_if_long
def test_job_that_was_cancelled_as_it_ended_leaves_no_version(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    job = submit(finetune_config | {"promote": "always"})
    with claimed(config, store) as context:
        succeed = context.succeed

        def cancel_first(**ending: Any) -> Job:
            store.jobs.request_cancel(job.id)
            return succeed(**ending)

        context.succeed = cancel_first  # type: ignore[method-assign]
        finetune(context)
    assert store.jobs.get(job.id).status is JobStatus.CANCELLED
    assert all(version.folder is None for version in store.versions.list().items)
    assert store.aliases.all() == ()


def test_training_that_changes_nothing_fails_the_job(
    config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    submit(finetune_config | {"lr": 1e-30, "steps": 1})
    with claimed(config, store) as context, pytest.raises(JobFailed) as caught:
        finetune(context)
    assert caught.value.error.code == "nothing_learned"


def test_base_that_was_deleted_fails_the_job_with_the_field_s_name(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    base: Clip,
    tmp_path: Path,
) -> None:
    first = published(config, store, base, save_tuned(tmp_path / "delta", base))
    store.versions.delete(first)
    submit(finetune_config | {"base": first})
    with claimed(config, store) as context, pytest.raises(JobFailed) as caught:
        finetune(context)
    assert (caught.value.error.code, caught.value.error.param) == ("unusable_record", "base")
    assert store.leases.claim(JobKind.FINETUNE, "x", 1) is None


def test_job_in_which_the_teacher_had_no_say_ends_by_saying_so(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    teacher_folder: Path,
) -> None:
    options = {"teacher": str(teacher_folder), "objective": "sds-clip", "sds_weight": 1e-6}
    job = run(config, store, submit, finetune_config | options)
    assert job.result is not None
    [warning] = job.result["warnings"]
    assert warning["code"] == "teacher_had_no_say"
    assert warning["figures"]["teacher_gradient_share"] < 0.05
    [event] = [event for event in store.events.events(job.id) if event.level is Level.WARNING]
    assert (event.message, (event.data or {})["code"]) == (warning["message"], "teacher_had_no_say")
    control = run(config, store, submit, finetune_config)
    assert control.result is not None
    assert control.result["warnings"] == []

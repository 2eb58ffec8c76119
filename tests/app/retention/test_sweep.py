"""What a sweep removes of a system with something of everything, and what it leaves."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sds_clip.app.errors import UnknownRecord
from sds_clip.app.registry.source import REPORTS, FileReports, ProcessReport
from sds_clip.app.retention.policy import Finding, Rules
from sds_clip.app.retention.sweep import TTL_S, Sweeper, SweepUnderWay
from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus, Move, NewVersion, VersionStatus
from sds_clip.app.store.retention import Kind
from sds_clip.worker.config import WorkerConfig
from tests.app.backup.contents import Made, System
from tests.worker.waiting import reaper

DAY = 86400.0
RULES = Rules(DAY, DAY, DAY, DAY)
KEEP = {f"SDS_CLIP_KEEP_{what}_S": str(DAY) for what in ("JOBS", "EVALUATIONS", "VERSIONS", "DATASETS")}

POINTS = [
    *(("os", "rename", "after", count) for count in (1, 5)),
    *(("shutil", "rmtree", "before", count) for count in (1, 5)),
    ("sds_clip.app.store.versions", "Versions.delete", "after", 1),
    ("sds_clip.app.store.datasets", "Datasets.delete", "after", 1),
    ("sds_clip.app.retention.sweep", "remove_job_files", "after", 1),
    ("sds_clip.app.store.retention", "_thinned", "after", 1),
    ("sds_clip.app.store.retention", "_remove_row", "after", 1),
    ("sds_clip.app.store.retention", "RetentionRecords.remove_job", "after", 1),
    *(
        pytest.param(point, marks=pytest.mark.long)
        for count in (2, 3, 4)
        for point in (("os", "rename", "after", count), ("shutil", "rmtree", "before", count))
    ),
]


@pytest.fixture
def now(system: System, made: Made) -> Iterator[Store]:
    """The store of today, when everything in the system is old."""
    store = Store(system.url)
    yield store
    store.close()


@pytest.fixture
def sweeper(system: System, now: Store) -> Sweeper:
    return Sweeper(now, system.data_dir, RULES)


def going(sweeper: Sweeper) -> list[Finding]:
    return [each for each in sweeper.find() if each.in_use is None]


def ids(findings: list[Finding]) -> list[tuple[Kind, str]]:
    return [(each.kind, each.id) for each in findings]


def names(removed: list[tuple[Finding, int]]) -> list[tuple[Kind, str]]:
    return ids([finding for finding, _ in removed])


def test_the_dry_run_finds_what_the_sweep_then_removes(
    system: System, made: Made, sweeper: Sweeper, now: Store
) -> None:
    rows, files = system.rows(), system.files()
    found = going(sweeper)
    sizes = [sweeper.size_of(each) for each in found]
    assert (system.rows(), system.files()) == (rows, files)
    assert {kind for kind, _ in ids(found)} == set(Kind)

    removed = list(sweeper.sweep("me"))

    assert names(removed) == ids(found)
    assert [size_bytes for _, size_bytes in removed] == sizes
    assert all(sizes)
    assert going(sweeper) == []
    assert list(sweeper.sweep("me")) == []


def test_what_is_old_goes_with_its_files_and_what_is_in_use_stays(
    system: System, made: Made, sweeper: Sweeper, now: Store
) -> None:
    stays = {each.id: each.in_use for each in sweeper.find() if each.in_use is not None}
    assert stays[made.version] == "The alias default points to it."
    assert stays[made.archive_set] == f"The job {made.running} needs it and has not ended."
    gone = dict(reversed(each) for each in names(list(sweeper.sweep("me"))))  # type: ignore[arg-type]

    assert gone.keys() >= {made.failed, made.measured, made.shard_set}
    assert not gone.keys() & {made.version, made.base, made.archive_set, made.upload, made.running}
    for job in (made.failed, made.measured):
        assert not (system.data_dir / "jobs" / job).exists()
        with pytest.raises(UnknownRecord):
            now.jobs.get(job)
    assert now.datasets.get(made.shard_set).status is DatasetStatus.DELETED
    assert now.versions.get(made.version).status is VersionStatus.READY
    # A crash had left the files of a deleted data set.
    assert {path.name for path in (system.data_dir / "datasets" / "sets").iterdir()} == {made.archive_set}
    assert system.check().problems == []
    assert system.check().unnamed == []


def test_what_was_found_but_is_in_use_by_now_stays(
    system: System, made: Made, sweeper: Sweeper, now: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sweeper.find()
    version = next(each.id for each in found if each.kind is Kind.VERSION and each.in_use is None)
    now.aliases.promote(Move("other", "me", "it is needed", None), version)
    now.jobs.request_retry(made.failed)
    monkeypatch.setattr(sweeper, "find", lambda: found)

    gone = [each for _, each in names(list(sweeper.sweep("me")))]

    assert made.measured in gone
    assert not {version, made.failed} & set(gone)
    assert now.versions.get(version).status is VersionStatus.READY
    assert (system.data_dir / "jobs" / made.failed).is_dir()


@contextmanager
def serving(system: System, version: str, at: float) -> Iterator[None]:
    """A process that has reported at a time that it serves a version."""
    reports = FileReports(system.data_dir / REPORTS)
    models = [{"name": "default", "version": version, "wanted_version": None}]
    with reports.enter("a-process"):
        content = {"host": socket.gethostname(), "models": models}
        reports.write(ProcessReport("a-process", at, content))
        yield


def test_a_version_that_a_process_serves_stays(system: System, made: Made, sweeper: Sweeper) -> None:
    version = next(each.id for each in going(sweeper) if each.kind is Kind.VERSION)
    with serving(system, version, time.time()):
        assert version not in {each.id for each in going(sweeper)}
    assert version in {each.id for each in going(sweeper)}


def test_what_is_served_follows_the_store_s_clock(system: System, made: Made) -> None:
    store = Store(system.url, clock=lambda: time.time() - 3600)
    sweeper = Sweeper(store, system.data_dir, RULES)
    version = next(each.id for each in going(sweeper) if each.kind is Kind.VERSION)
    with serving(system, version, store.now()):
        assert version not in {each.id for each in going(sweeper)}
    store.close()


def test_only_one_process_sweeps(made: Made, sweeper: Sweeper, now: Store) -> None:
    found = ids(going(sweeper))
    assert now.retention.claim_sweep("another", 60)
    with pytest.raises(SweepUnderWay):
        next(sweeper.sweep("me"))
    now.retention.release_sweep("another")
    assert names(list(sweeper.sweep("me"))) == found


def test_a_sweep_ends_when_another_process_has_taken_over(
    made: Made, sweeper: Sweeper, now: Store, system: System
) -> None:
    sweep = sweeper.sweep("me")
    next(sweep)
    late = Store(system.url, clock=lambda: time.time() + TTL_S + 1)
    assert late.retention.claim_sweep("another", 60)
    late.close()
    assert list(sweep) == []
    assert not now.retention.claim_sweep("me", 60)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[1]}-{point[3]}")
def test_a_killed_sweep_harms_nothing_and_the_next_one_ends_it(
    system: System, made: Made, sweeper: Sweeper, point: tuple[str, str, str, int], tmp_path: Path
) -> None:
    found = {each.id for each in going(sweeper)}
    kept = {each.id for each in sweeper.find()} - found
    system.kill(point, "prune", "--apply", **KEEP)
    # What was about to go may be half gone, everything else is whole.
    assert {problem.id for problem in system.check().problems} <= found

    later = Store(system.url, clock=lambda: time.time() + TTL_S + 1)
    again = Sweeper(later, system.data_dir, RULES)
    list(again.sweep("another"))
    config = WorkerConfig("redis://none", system.url, system.data_dir, "finetune", keep_files_s=1e12)
    reaper(config, later).clean()
    assert going(again) == []
    assert {each.id for each in again.find()} == kept
    later.close()

    assert system.check().problems == []
    assert system.check().unnamed == []
    for folder in ("versions", "jobs", "datasets/work"):
        assert [path.name for path in (system.data_dir / folder).glob(".*")] == []
    assert not any(path.name in found for path in system.data_dir.glob("*/*"))
    assert not any(path.name in found for path in system.data_dir.glob("datasets/*/*"))


def test_version_whose_row_names_a_folder_elsewhere_is_kept_and_the_rest_is_removed(
    system: System, made: Made, sweeper: Sweeper
) -> None:
    victim = system.data_dir.parent / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    expected = {each.id for each in going(sweeper)}
    system.store.versions.register(NewVersion("e" * 64, "../victim", {}, 1))

    removed = list(sweeper.sweep("me"))

    gone = {id for _, id in names(removed)}
    assert gone >= expected
    assert "e" * 64 not in gone
    assert [path.name for path in victim.iterdir()] == ["file"]
    assert system.store.versions.get("e" * 64).status is VersionStatus.READY

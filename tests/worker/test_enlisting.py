"""Checks are submitted once no service of the release before runs, which could not read them."""

from sds_clip.app.registry.source import REPORTS, FileReports, ProcessReport
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.verdicts import check_of
from sds_clip.worker.enlisting import enlist
from tests.worker.waiting import fit
from tests.worker.work import Work


def test_checks_wait_for_the_end_of_a_service_of_the_release_before(work: Work) -> None:
    reports = FileReports(work.config.data_dir / REPORTS, work.store.now)
    alive = [reports.enter(name) for name in ("old", "new")]
    reports.write(ProcessReport("old", work.store.now(), {"host": "another", "models": []}))
    reports.write(ProcessReport("new", work.store.now(), {"host": "another", "data_folder_error": None}))
    sent: list[tuple[JobKind, str]] = []

    def look() -> None:
        fitness = fit(work.config, work.store)
        enlist(work.config, work.store, fitness, lambda kind, job_id: sent.append((kind, job_id)) is None)

    first, second = (work.store.datasets.add(format="pairs", source={}).id for _ in range(2))
    look()
    assert sent == []
    alive[0].release()
    reports.remove("old")
    look()
    look()
    assert sent == [(JobKind.CHECK, check_of(first)), (JobKind.CHECK, check_of(second))]
    alive[1].release()


def test_checks_are_submitted_without_any_service(work: Work) -> None:
    added = work.store.datasets.add(format="pairs", source={})
    enlist(work.config, work.store, fit(work.config, work.store), lambda kind, job_id: False)
    assert work.store.jobs.get(check_of(added.id)).kind is JobKind.CHECK

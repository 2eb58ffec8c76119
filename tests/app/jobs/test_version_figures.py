"""What GET /models/{version} tells of what was measured of a version."""

import json
from typing import Any

from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.store.records import NewJob
from sds_clip.app.store.states import JobKind
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.results import Results
from sds_clip.worker.benchmarks import summary
from tests.app.jobs.conftest import Keyed, Quick, Service
from tests.app.jobs.test_dry_run import evaluated, of_version
from tests.app.registry.test_gate import retrieval, winoground
from tests.databases import on_both


def figures(service: Service, version: str) -> Any:
    return service.client.get(f"/models/{version}").json()["evaluations"]


def shown(results: Results, version: str) -> Any:
    """As a job that makes a version describes it."""
    return json.loads(json.dumps(summary(of_version(results, version))))


def data_of(service: Service, job: str) -> str:
    return str(service.client.get(f"/jobs/{job}").json()["data"])


@on_both
def test_evaluations_of_a_version_stand_beside_those_of_the_job_that_made_it(quick: Quick) -> None:
    version, base = quick.publish(), quick.base
    made = figures(quick, version)
    assert figures(quick, base) is None

    new, old = winoground(12, group=7), winoground(4, group=3)
    on = f"winoground ({data_of(quick, evaluated(quick, version, base, new, old))})"

    assert figures(quick, base) == {on: shown(old, base)}
    assert figures(quick, version) == {**made, on: shown(new, version)}


@on_both
def test_evaluation_that_names_a_base_by_its_reference_counts_even_without_its_files(quick: Quick) -> None:
    job = measured(quick, quick.clip, quick.ready_dataset("retrieval"), retrieval(0.5, 0.25))
    assert quick.client.delete(f"/jobs/{job}").status_code == 200

    (found,) = figures(quick, quick.base).values()

    assert found["metrics"]["text_retrieval_recall@1"]["value"] == 0.25


def test_newest_evaluation_on_the_same_data_counts(quick: Quick) -> None:
    data = quick.ready_dataset("retrieval")
    for share in (0.5, 0.75):
        measured(quick, quick.clip, data, retrieval(share, 0))

    (found,) = figures(quick, quick.base).values()

    assert found["metrics"]["image_retrieval_recall@1"]["value"] == 0.75


@on_both
def test_key_sees_the_figures_of_its_own_evaluations(keyed: Keyed) -> None:
    base = keyed.clip.version
    measured(keyed.service, keyed.clip, keyed.dataset("alice", "retrieval"), retrieval(0.5, 0.5), "alice")

    seen = {
        key: keyed.ask(key, "GET", f"/models/{base}").json()["evaluations"]
        for key in ("alice", "bob", "root")
    }

    assert seen["bob"] is None
    assert seen["alice"] == seen["root"] != {}


def measured(service: Service, clip: Clip, data: str, results: Results, owner: str = "") -> str:
    """The job that has measured a base, by its reference."""
    spec = EvaluateSpec(model=clip.reference, benchmark=results.benchmark, data=data)
    job, _ = service.store.jobs.submit(
        NewJob(spec.kind, spec.as_sent(), config=spec.as_row(), datasets=(data,), owner=owner)
    )
    _, lease = service.claim(JobKind.EVALUATE)
    result = {**summary(of_version(results, clip.version)), "files": {}}
    service.store.leases.succeed(lease, result=result)
    return job.id

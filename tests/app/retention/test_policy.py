"""What goes and what stays, without a database."""

from typing import Any

import pytest

from sds_clip.app.retention.policy import Finding, Kind, Rules, decide
from sds_clip.app.store.retention import EndedJob, HeldDataset, HeldVersion, Holdings
from sds_clip.app.store.states import JobKind

NOW = 1_700_000_000.0
DAY = 86400.0
ALL = Rules(10 * DAY, 10 * DAY, 10 * DAY, 10 * DAY)


def version(id: str, days: float = 11, **values: Any) -> HeldVersion:
    return HeldVersion(
        **{
            "id": id,
            "owner": "me",
            "folder": f"versions/{id}",
            "base_version": None,
            "used_at": NOW - days * DAY,
            **values,
        }
    )


def job(id: str, days: float = 11, kind: JobKind = JobKind.FINETUNE, made: str | None = None) -> EndedJob:
    return EndedJob(id, kind, "a name", "me", NOW - days * DAY, made)


def dataset(id: str, days: float = 11, **values: Any) -> HeldDataset:
    return HeldDataset(
        **{
            "id": id,
            "name": "a set",
            "owner": "me",
            "is_registered": False,
            "used_at": NOW - days * DAY,
            **values,
        }
    )


def found(rules: Rules = ALL, *, served: tuple[str, ...] = (), **holdings: Any) -> list[Finding]:
    return decide(Holdings(NOW, **holdings), rules, served=served)


def going(findings: list[Finding]) -> list[str]:
    return [each.id for each in findings if each.in_use is None]


def why(findings: list[Finding]) -> dict[str, str]:
    """Why things stay, by their ids."""
    return {each.id: each.in_use for each in findings if each.in_use is not None}


def test_by_default_everything_stays_however_old_it_is() -> None:
    everything = Holdings(
        NOW,
        [job("j", 9999), job("e", 9999, JobKind.EVALUATE)],
        [version("v", 9999)],
        [dataset("d", 9999)],
    )
    assert decide(everything, Rules()) == decide(everything, Rules(keep_rollbacks=0)) == []
    assert not Rules(keep_rollbacks=0).are_set


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        (Rules(keep_jobs_s=10 * DAY), {Kind.JOB}),
        (Rules(keep_evaluations_s=10 * DAY), {Kind.EVALUATION}),
        (Rules(keep_versions_s=10 * DAY), {Kind.VERSION}),
        (Rules(keep_datasets_s=10 * DAY), {Kind.DATASET}),
        (ALL, set(Kind)),
    ],
)
def test_each_rule_lets_go_what_is_older_of_its_own_kind(rules: Rules, gone: set[Kind]) -> None:
    findings = found(
        rules,
        jobs=[
            *(job(f"j{days}", days) for days in (11, 9)),
            *(job(f"e{days}", days, JobKind.EVALUATE) for days in (11, 9)),
        ],
        versions=[version(f"v{days}", days) for days in (11, 9)],
        datasets=[dataset(f"d{days}", days) for days in (11, 9)],
    )
    assert rules.are_set
    assert {each.kind for each in findings} == gone
    assert all(each.id.endswith("11") and each.in_use is None for each in findings)
    assert {each.age_s for each in findings} == {11 * DAY}


def test_a_finding_says_what_it_is_and_which_setting_lets_it_go() -> None:
    (finding,) = found(datasets=[dataset("d")])
    assert (finding.name, finding.owner, finding.folder) == ("a set", "me", "datasets/sets/d")
    assert finding.why == "It is older than SDS_CLIP_KEEP_DATASETS_S."
    (registered,) = found(datasets=[dataset("d", is_registered=True)])
    assert registered.folder is None


def test_what_an_alias_points_to_and_what_its_rollbacks_may_return_to_stays() -> None:
    ids = ("now", "before", "earlier", "left")
    findings = found(versions=[version(id) for id in ids], aliases={"default": ["now", "before", "earlier"]})
    assert going(findings) == ["left"]
    assert why(findings) == {
        "now": "The alias default points to it.",
        "before": "A rollback of the alias default may return to it.",
        "earlier": "A rollback of the alias default may return to it.",
    }


def test_the_operator_may_limit_how_far_rollbacks_go() -> None:
    """A deleted version, the present one, and one that occurs twice take no place."""
    versions = [version(id) for id in ("now", "b", "c", "d")]
    history = {"default": ["now", "deleted", "b", "now", "b", "c", "d"]}
    rules = Rules(keep_versions_s=0, keep_rollbacks=2)
    assert going(found(rules, versions=versions, aliases=history)) == ["d"]
    rules = Rules(keep_versions_s=0, keep_rollbacks=0)
    assert going(found(rules, versions=versions, aliases=history)) == ["b", "c", "d"]


def test_a_version_that_an_open_job_needs_or_a_process_serves_stays() -> None:
    findings = found(versions=[version("v", open_job="job_1"), version("w")], served=("w",))
    assert why(findings) == {
        "v": "The job job_1 needs it and has not ended.",
        "w": "A process serves it.",
    }


def test_the_operators_own_models_stay() -> None:
    assert found(versions=[version("v", folder=None)]) == []


def test_bases_of_versions_that_stay_do_too_over_any_number_of_steps() -> None:
    findings = found(
        versions=[
            version("base"),
            version("middle", base_version="base"),
            version("young", 1, base_version="middle"),
            version("other base"),
            version("other", base_version="other base"),
        ]
    )
    assert why(findings) == {
        "base": "The version middle is based on it.",
        "middle": "The version young is based on it.",
    }
    assert going(findings) == ["other", "other base"]


def test_a_version_goes_before_its_base_and_before_its_job() -> None:
    findings = found(
        jobs=[job("j", made="child")],
        versions=[version("base", 99), version("child", base_version="base")],
    )
    assert going(findings) == ["child", "base", "j"]


def test_a_version_that_is_its_own_base_is_no_endless_chain() -> None:
    assert going(found(versions=[version("v", base_version="v")])) == ["v"]


def test_a_job_stays_as_long_as_the_version_that_it_made() -> None:
    rules = Rules(keep_jobs_s=0, keep_versions_s=10 * DAY)
    findings = found(
        rules,
        jobs=[job("1", made="young"), job("2", made="old"), job("3", made="deleted"), job("4")],
        versions=[version("young", 1), version("old")],
    )
    assert why(findings) == {"1": "The version young, which it made, is kept."}
    assert going(findings) == ["old", "2", "3", "4"]


def test_a_job_stays_if_versions_have_no_limit() -> None:
    findings = found(Rules(keep_jobs_s=0), jobs=[job("j", made="v")], versions=[version("v")])
    assert why(findings) == {"j": "The version v, which it made, is kept."}


def test_a_data_set_that_an_open_job_needs_stays() -> None:
    findings = found(datasets=[dataset("d", open_job="job_1"), dataset("e")])
    assert why(findings) == {"d": "The job job_1 needs it and has not ended."}
    assert going(findings) == ["e"]

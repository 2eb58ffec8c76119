"""What goes and what stays, without a database."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest

from sds_clip.app.retention.policy import Finding, Rules, decide
from sds_clip.app.store.retention import Held, Holdings, Kind

NOW = 1_700_000_000.0
DAY = 86400.0
ALL = Rules(10 * DAY, 10 * DAY, 10 * DAY, 10 * DAY)


def held(kind: Kind, id: str, days: float, **values: Any) -> Held:
    return Held(kind, id, **{"name": "a name", "owner": "me", "used_at": NOW - days * DAY, **values})


def version(id: str, days: float = 11, **values: Any) -> Held:
    return held(Kind.VERSION, id, days, **{"folder": f"versions/{id}", **values})


def job(id: str, days: float = 11, kind: Kind = Kind.JOB, made: str | None = None) -> Held:
    return held(kind, id, days, version=made)


def dataset(id: str, days: float = 11, **values: Any) -> Held:
    return held(Kind.DATASET, id, days, **values)


def found(
    *things: Held,
    rules: Rules = ALL,
    served: tuple[str, ...] = (),
    aliases: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Finding]:
    return decide(Holdings(NOW, things, aliases), rules, served=served)


def going(findings: list[Finding]) -> list[str]:
    return [each.id for each in findings if each.in_use is None]


def why(findings: list[Finding]) -> dict[str, str]:
    """Why things stay, by their ids."""
    return {each.id: each.in_use for each in findings if each.in_use is not None}


def test_by_default_everything_stays_however_old_it_is() -> None:
    things = [job("j", 9999), job("e", 9999, Kind.EVALUATION), version("v", 9999), dataset("d", 9999)]
    assert found(*things, rules=Rules()) == found(*things, rules=Rules(keep_rollbacks=0)) == []
    assert not Rules(keep_rollbacks=0).limits


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
    kinds = {"j": job, "v": version, "d": dataset}
    findings = found(
        *(make(f"{letter}{days}", days) for letter, make in kinds.items() for days in (11, 9)),
        *(job(f"e{days}", days, Kind.EVALUATION) for days in (11, 9)),
        rules=rules,
    )
    assert rules.limits
    assert {each.kind for each in findings} == gone
    assert all(each.id.endswith("11") and each.in_use is None for each in findings)
    assert {each.age_s for each in findings} == {11 * DAY}


def test_a_finding_says_what_it_is_and_which_setting_lets_it_go() -> None:
    (finding,) = found(dataset("d", name="a set", folder="datasets/sets/d"))
    assert (finding.name, finding.owner, finding.folder) == ("a set", "me", "datasets/sets/d")
    assert finding.why == "It is older than SDS_CLIP_KEEP_DATASETS_S."


def test_what_an_alias_points_to_and_what_its_rollbacks_may_return_to_stays() -> None:
    ids = ("now", "before", "earlier", "left")
    findings = found(*map(version, ids), aliases={"default": ["now", "before", "earlier"]})
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
    assert going(found(*versions, rules=rules, aliases=history)) == ["d"]
    rules = Rules(keep_versions_s=0, keep_rollbacks=0)
    assert going(found(*versions, rules=rules, aliases=history)) == ["b", "c", "d"]


def test_a_version_that_an_open_job_needs_or_a_process_serves_stays() -> None:
    findings = found(version("v", open_job="job_1"), version("w"), served=("w",))
    assert why(findings) == {
        "v": "The job job_1 needs it and has not ended.",
        "w": "A process serves it.",
    }


def test_the_operators_own_models_stay() -> None:
    assert found(version("v", folder=None)) == []


def test_bases_of_versions_that_stay_do_too_over_any_number_of_steps() -> None:
    findings = found(
        version("base"),
        version("middle", version="base"),
        version("young", 1, version="middle"),
        version("other base"),
        version("other", version="other base"),
    )
    assert why(findings) == {
        "base": "The version middle is based on it.",
        "middle": "The version young is based on it.",
    }
    assert going(findings) == ["other", "other base"]


def test_a_version_goes_before_its_base_and_before_its_job() -> None:
    findings = found(
        job("j", made="child"),
        version("base", 99),
        version("child", version="base"),
    )
    assert going(findings) == ["child", "base", "j"]


def test_a_version_that_is_its_own_base_is_no_endless_chain() -> None:
    assert going(found(version("v", version="v"))) == ["v"]


def test_a_job_stays_as_long_as_the_version_that_it_made() -> None:
    rules = Rules(keep_jobs_s=0, keep_versions_s=10 * DAY)
    findings = found(
        *(job("1", made="young"), job("2", made="old"), job("3", made="deleted"), job("4")),
        *(version("young", 1), version("old")),
        rules=rules,
    )
    assert why(findings) == {"1": "The version young, which it made, is kept."}
    assert going(findings) == ["old", "2", "3", "4"]


def test_a_job_stays_if_versions_have_no_limit() -> None:
    findings = found(job("j", made="v"), version("v"), rules=Rules(keep_jobs_s=0))
    assert why(findings) == {"j": "The version v, which it made, is kept."}


def test_a_data_set_that_an_open_job_needs_stays() -> None:
    findings = found(dataset("d", open_job="job_1"), dataset("e"))
    assert why(findings) == {"d": "The job job_1 needs it and has not ended."}
    assert going(findings) == ["e"]

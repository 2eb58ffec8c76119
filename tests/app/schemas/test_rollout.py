"""How far a process is with a move of an alias, as its report tells."""

from typing import Any

import pytest

from sds_clip.app.schemas.models import AliasReading, FailedLoad, NameStatus, ProcessStatus
from sds_clip.app.schemas.rollout import MovedAlias, ProcessRollout
from sds_clip.app.schemas.versions import AliasInfo
from sds_clip.app.store.records import Alias

ALIAS = AliasInfo.model_validate(Alias("live", "b" * 64, 2))


def status(
    name: str = "live", *, away: str | None = None, failed: int | None = None, **fields: Any
) -> ProcessStatus:
    failure = None
    if failed is not None:
        failure = FailedLoad(
            version="b" * 64, generation=failed, at=1.0, code="x", reason="no base", attempts=1
        )
    return ProcessStatus(
        process="host-1-ab",
        host="host",
        pid=1,
        started_at=0.0,
        at=1.0,
        aliases=AliasReading(state="away" if away else "read", error=away),
        models=[NameStatus(name=name, last_failed_load=failure, **fields)],
    )


NEW, OLD = {"version": "b" * 64, "generation": 2}, {"version": "a" * 64, "generation": 1}


@pytest.mark.parametrize(
    ("reported", "state", "error"),
    [
        (status(**NEW), "serving", None),
        (status(version="c" * 64, generation=3), "serving", None),
        (status(**OLD), "behind", None),
        (status(), "behind", None),
        (status("other", **NEW), "behind", None),
        # A reference of the alias's name, which is always at generation 1.
        (status(version="a" * 64, generation=2), "behind", None),
        (status(**OLD, failed=2), "failed", "no base"),
        (status(**OLD, failed=1), "behind", None),
        (status(**NEW, failed=2), "serving", None),
        (status(**OLD, away="no answer"), "behind", "no answer"),
        (status(**NEW, away="no answer"), "serving", None),
    ],
)
def test_state_follows_from_the_report(reported: ProcessStatus, state: str, error: str | None) -> None:
    found = ProcessRollout.of(reported, ALIAS)
    assert (found.state, found.error) == (state, error)


def test_all_serve_only_if_each_does_and_the_reports_could_be_read() -> None:
    new, old = (ProcessRollout.of(status(**fields), ALIAS) for fields in (NEW, OLD))
    assert MovedAlias.watched(ALIAS, [new, new]).served_by_all is True
    assert MovedAlias.watched(ALIAS, [new, old]).served_by_all is False
    assert MovedAlias.watched(ALIAS, None).served_by_all is False

"""`sds-clip prune`: what retention removes, and, if asked, its removal."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.database import open_store
from sds_clip.options import command, data_dir_option, json_option, option, read_settings
from sds_clip.table import say, size_text, table

if TYPE_CHECKING:
    from sds_clip.app.retention.policy import Finding

_DAY_S = 86400


@command(
    extra="jobs",
    examples="""\
sds-clip prune
SDS_CLIP_KEEP_DATASETS_S=2592000 sds-clip prune --in-use
sds-clip prune --apply --json
""",
)
@data_dir_option
@option("--apply", is_flag=True, help="Remove what is listed. Without this option, nothing is changed.")
@option("--in-use", is_flag=True, help="List also what is old enough but in use, and by what.")
@json_option
def prune(data_dir: Path | None, apply: bool, in_use: bool, as_json: bool) -> int:
    """List the jobs, evaluations, versions and data sets that retention removes.

    The settings SDS_CLIP_KEEP_JOBS_S, SDS_CLIP_KEEP_EVALUATIONS_S, SDS_CLIP_KEEP_VERSIONS_S, SDS_CLIP_KEEP_DATASETS_S
    and SDS_CLIP_KEEP_ROLLBACKS decide. The workers remove the same every ten minutes if they have these settings.

    The service and its workers may run meanwhile. With --apply, what was removed is listed, and the exit code is 1 if
    something could not be removed.
    """
    settings = read_settings(data_dir=data_dir)
    from sds_clip.app.retention.policy import Rules
    from sds_clip.app.retention.sweep import Sweeper, SweepUnderWay

    rules = Rules.of(settings)
    if not rules.limits:
        say("No setting SDS_CLIP_KEEP_..._S of retention is set, so everything is kept.")
    try:
        with open_store(settings) as store:
            sweeper = Sweeper(store, settings.data_dir.absolute(), rules)
            found = sweeper.find()
            stays = [each for each in found if each.in_use is not None]
            if apply:
                owner = f"{socket.gethostname()}/{os.getpid()}/prune"
                gone = [_row(*each) for each in sweeper.sweep(owner)]
                failed = sum(each.in_use is None for each in sweeper.find())
            else:
                gone = [_row(each, sweeper.size_of(each)) for each in found if each.in_use is None]
                failed = 0
            kept = [_row(each, sweeper.size_of(each)) for each in stays] if in_use else []
    except SweepUnderWay as error:
        raise click.ClickException(str(error)) from error
    sums = _sums(gone)
    if as_json:
        print(json.dumps({"applied": apply, "items": gone, "sums": sums, "in_use": kept}, indent=2))
    else:
        _print(gone, kept)
        counts = ", ".join(f"{kind} ({each['count']})" for kind, each in sums.items())
        size = size_text(sum(each["bytes"] for each in sums.values()))
        say(f"{'Removed' if apply else 'To be removed'}: {counts}; {size} in all.")
    return 1 if failed else 0


def _row(finding: Finding, size_bytes: int) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "id": finding.id,
        "name": finding.name,
        "owner": finding.owner,
        "age_s": round(finding.age_s),
        "bytes": size_bytes,
        "why": finding.why,
    }


def _sums(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    from sds_clip.app.store.retention import Kind

    sums = {kind.value: {"count": 0, "bytes": 0} for kind in Kind}
    for row in rows:
        sums[row["kind"]]["count"] += 1
        sums[row["kind"]]["bytes"] += row["bytes"]
    return sums


def _print(gone: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
    rows = [*gone, *kept]
    if rows:
        header = ("kind", "id", "name", "owner", "days", "bytes", "why")
        cells = [
            [*(row[name] for name in header[:4]), row["age_s"] / _DAY_S, row["bytes"], row["why"]]
            for row in rows
        ]
        print(table(header, cells, decimals=1))

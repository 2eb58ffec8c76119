"""Prints the results of `sds-clip evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sds_clip.models.evaluation.results import GROUP_MATCH
from sds_clip.table import printable_lines, say, table

if TYPE_CHECKING:
    from pathlib import Path

    from sds_clip.models.evaluation.evaluation import Evaluation
    from sds_clip.models.evaluation.results import Results

_TAGS = 60
_LEFT_OUT = 5


def print_evaluation(found: Evaluation, report: Path | None, *, as_json: bool) -> None:
    """Print metrics with intervals, then per tag, then the comparison; or everything as JSON."""
    if as_json:
        print(json.dumps(_as_json(found, report), indent=2))
        return
    print(_figures(found.results, found.served))
    if found.results.by_tag:
        print(f"\n{_by_tag(found.results)}")
    if found.comparison is not None:
        from sds_clip.models.evaluation.comparison import compared_by_tag, comparison_rows

        header, rows = comparison_rows(found.comparison)
        by_tag = sum(
            len(set(compared_by_tag(found.comparison)) & set(of)) for of in found.comparison.by_tag.values()
        )
        print(f"\n{_first(header, rows, len(rows) - by_tag + _TAGS)}")
    for remark in _remarks(found.results):
        print(f"\n{remark}")
    if report is not None:
        print(f"\n{report}")
        say(f"Wrote {report} and {report.with_name('results.json')}. Open the report in a browser.")


def _remarks(results: Results) -> list[str]:
    """Caveats that a reader of the metrics must know."""
    from sds_clip.models.evaluation.image_check import listing

    provenance, remarks = results.provenance, []
    if missing := provenance["settings"].get("files_missing"):
        remarks.append(
            f"These files are missing: {', '.join(missing)}. The macro_acc here cannot be compared with published "
            "figures, which are means over all files of the benchmark."
        )
    lacking = {name: count for name, count in provenance.get("incomplete", {}).items() if count}
    if lacking:
        counts = " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in lacking.items())
        remarks.append(
            f"{counts} lack images. They count as wrong in pair_acc and set_acc, for the images that they have."
        )
    left_out = provenance["items"] - provenance["items_used"]
    if left_out:
        lines = listing(provenance["items_left_out"], left_out, _LEFT_OUT)
        remarks.append("\n".join([f"{left_out} of {provenance['items']} items were left out:", *lines]))
    return [printable_lines(remark) for remark in remarks]


def _as_json(found: Evaluation, report: Path | None) -> dict[str, object]:
    from sds_clip.models.evaluation.results import as_json

    content: dict[str, object] = as_json(found.results, items=False)
    if found.baseline is not None and found.comparison is not None:
        content["baseline"] = as_json(found.baseline, items=False)
        content["comparison"] = asdict(found.comparison)
    if report is not None:
        content["report"] = str(report)
    return content


def _figures(results: Results, served: Results | None) -> str:
    names, metrics = list(results.metrics), list(results.metrics.values())
    columns: dict[str, list[Any]] = {results.benchmark: names}
    for head, field in (("%", "value"), ("low", "low"), ("high", "high"), ("chance %", "chance")):
        columns[head] = [_percent(getattr(metric, field)) for metric in metrics]
    columns |= {"items": [metric.n for metric in metrics], "ties": [metric.ties for metric in metrics]}
    if GROUP_MATCH in names:
        columns["d'"] = [metric.d_prime for metric in metrics]
    if served is not None:
        columns[f"{served.provenance['precision']} %"] = [100 * served.metrics[name].value for name in names]
    if (raw := results.provenance.get("raw_score")) is not None:
        columns["raw -d %"] = [100 * raw[name] for name in names]
    return table(list(columns), list(zip(*columns.values(), strict=True)), decimals=2)


def _by_tag(results: Results) -> str:
    names = list(dict.fromkeys(name for metrics in results.by_tag.values() for name in metrics))
    header = ["tag", "items", *(f"{name} %" for name in names), "ties"]
    rows: list[list[object]] = []
    for tag, metrics in results.by_tag.items():
        shares = [_percent(metrics[name].value) if name in metrics else None for name in names]
        ties = max(metric.ties for metric in metrics.values())
        rows.append([tag, max(metric.n for metric in metrics.values()), *shares, ties])
    chances = [_percent(results.metrics[name].chance) if name in results.metrics else None for name in names]
    chance: list[object] = ["chance", None, *chances, None]
    if GROUP_MATCH in names:
        header.append("d'")
        for row, metrics in zip(rows, results.by_tag.values(), strict=True):
            row.append(metrics[GROUP_MATCH].d_prime)
        chance.append(None)
    return _first(header, rows, _TAGS, last=chance)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _first(
    header: list[str], rows: list[list[object]], count: int, *, last: list[object] | None = None
) -> str:
    lines = table(header, rows[:count] + ([last] if last else []), decimals=2)
    return f"{lines}\nand {len(rows) - count} more tags" if len(rows) > count else lines

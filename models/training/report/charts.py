"""Which curves of a run's log the page shows, thinned out, and on which scales."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from sds_clip.models.training.influence import MIN_GRADIENT_SHARE, MIN_RESIDUAL_GAP
from sds_clip.models.training.watcher import Record

POINTS = 200
"""The most points of a curve. Of a longer one, the means of successive records are shown."""

Records = Mapping[str, Sequence[Record]]
"""The records of each series."""
Value = Callable[[Record], float | None]


@dataclass(frozen=True)
class Chart:
    """Curves of one figure as points (share of the steps, share of the height), each by its series."""

    title: str
    note: str
    curves: dict[str, list[tuple[float, float]]]
    late: dict[str, float]
    """The mean over the second half of each curve."""
    low: float
    high: float
    steps: int
    mark: float | None
    """The share of the height at which a line is drawn, if there is one."""


def _logged(name: str) -> Value:
    return lambda record: record.get(name)


def _residual_gap(record: Record) -> float | None:
    if "residual_shuffled" not in record or not record.get("residual"):
        return None
    return (record["residual_shuffled"] - record["residual"]) / record["residual"]


_CHARTS: tuple[tuple[str, Value, float | None, str], ...] = (
    ("Loss", _logged("loss"), None, "The weighted sum that is minimised."),
    ("L_CLIP", _logged("clip"), None, "CLIP's own loss on the batch."),
    ("L_SDS", _logged("sds"), None, "Without lambda."),
    ("L_condition", _logged("condition"), None, "Without lambda."),
    ("L_noise", _logged("noise_contrast"), None, "Without lambda."),
    ("Loss on hard negatives", _logged("negatives"), None, "Without its weight."),
    (
        "Gradient share", _logged("teacher_gradient_share"), MIN_GRADIENT_SHARE,
        "The gradient of the teacher's weighted loss on the image features, divided by that of the other losses. Below "
        f"the dashed line, at {MIN_GRADIENT_SHARE:g}, the teacher hardly matters.",
    ),
    (
        "Cosine of the gradients", _logged("teacher_gradient_cosine"), 0.0,
        "Of the angle between these two gradients. Below the dashed line, at 0, the losses work against each other.",
    ),
    (
        "Residual gap", _residual_gap, MIN_RESIDUAL_GAP,
        "By how much the teacher's error grows with the captions of other samples, as a share of it. Below the dashed "
        f"line, at {MIN_RESIDUAL_GAP:g}, what the teacher sees of an image carries no information.",
    ),
)  # fmt: skip


def charts(records: Records) -> list[Chart]:
    """Return a chart for each figure that any of the runs has logged."""
    drawn = [_chart(records, *about) for about in _CHARTS]
    return [chart for chart in drawn if chart is not None]


def _chart(records: Records, title: str, value: Value, mark: float | None, note: str) -> Chart | None:
    points = {series: _points(own, value) for series, own in records.items()}
    points = {series: own for series, own in points.items() if own}
    if not points:
        return None
    seen = [found for own in points.values() for _, found in own] + ([] if mark is None else [mark])
    low, high = min(seen), max(seen)
    height = high - low or 1.0
    steps = int(max(step for own in points.values() for step, _ in own))
    thinned = {series: _thinned(own) for series, own in points.items()}
    return Chart(
        title=title,
        note=note,
        curves={
            series: [(step / steps, (found - low) / height) for step, found in own]
            for series, own in thinned.items()
        },
        late={series: fmean(found for _, found in own[len(own) // 2 :]) for series, own in points.items()},
        low=low,
        high=high,
        steps=steps,
        mark=None if mark is None else (mark - low) / height,
    )


def _points(records: Sequence[Record], value: Value) -> list[tuple[float, float]]:
    found = ((float(record["step"]), value(record)) for record in records)
    return [(step, float(number)) for step, number in found if number is not None and isfinite(number)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(step for step, _ in group), fmean(found for _, found in group)) for group in groups]


def validation(records: Records) -> dict[str, dict[str, float]]:
    """Return the figures on the validation pairs: by name, those of the base and of each series at its end."""
    last = {
        series: next((record for record in reversed(own) if "validation_clip" in record), {})
        for series, own in records.items()
    }
    columns = {
        "base": {name: value for record in last.values() for name, value in record.items()},
        **last,
    }
    names = sorted({name for record in last.values() for name in record if name.startswith("validation_")})
    return {
        name.removeprefix("validation_"): {
            column: float(values[key])
            for column, values in columns.items()
            if (key := f"base_{name}" if column == "base" else name) in values
        }
        for name in names
    }

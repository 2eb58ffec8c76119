"""The report of a run: one HTML page that needs no network, no script and no other file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template

from sds_clip.models.atomic import write_atomic
from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.errors import DataError, TrainingError
from sds_clip.models.evaluation.report import STYLE
from sds_clip.models.evaluation.report.words import FILTERS
from sds_clip.models.images.decode import ImageError
from sds_clip.models.images.thumbnails import Picture, thumbnail
from sds_clip.models.pages import environment, render
from sds_clip.models.run_files import CONFIG_FILE, LOG_FILE, REPORT_FILE
from sds_clip.models.training.influence import RunWarning
from sds_clip.models.training.log import read_log, writing
from sds_clip.models.training.part import sub_batch
from sds_clip.models.training.report.charts import charts, validation
from sds_clip.models.training.watcher import Record

RUN, CONTROL = "model", "baseline"
"""The two series, by their names in the style sheet."""
SAMPLES = 6

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class RunFiles:
    """What a folder of a run says of it."""

    config: dict[str, Any]
    records: list[Record]


def read_run(folder: Path) -> RunFiles:
    """Read a run's configuration and log, as far as it is written. Raises TrainingError if the folder has none."""
    try:
        config = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(
            f"{folder} is no run, because its {CONFIG_FILE} cannot be read. Give the --out folder of a run."
        ) from error
    records = [record for record in read_log(folder / LOG_FILE) if "step" in record]
    if not isinstance(config, dict) or not records:
        raise TrainingError(
            f"{folder} is no run with a {CONFIG_FILE} and a {LOG_FILE} yet. Name another folder."
        )
    return RunFiles(config, records)


def write_run_report(
    out: Path, pairs: PairSet, *, control: Path | None = None, warning: RunWarning | None = None
) -> Path:
    """Write `out/report.html` from what the run has written there, and return its path.

    Raises:
        TrainingError: the control cannot be read, or the file cannot be written.
    """
    runs = {RUN: read_run(out)} if control is None else {CONTROL: read_run(control), RUN: read_run(out)}
    html = render(
        _template(),
        STYLE,
        _HERE / "style.css",
        run=runs[RUN],
        names={series: "run" if series == RUN else "control" for series in runs},
        charts=charts({series: run.records for series, run in runs.items()}),
        validation=validation({series: run.records for series, run in runs.items()}),
        options={
            name: {series: _shown(run.config.get(name)) for series, run in runs.items()}
            for name in {name: None for run in reversed(runs.values()) for name in run.config}
        },
        samples=_samples(pairs),
        warning=warning,
    )
    file = out / REPORT_FILE
    with writing(file):
        write_atomic(file, html)
    return file


@cache
def _template() -> Template:
    templates = environment(_HERE)
    templates.filters |= {function.__name__: function for function in (*FILTERS, figure)}
    return templates.get_template("page.html.jinja")


def figure(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _samples(pairs: PairSet) -> Sequence[tuple[Sample, Picture | None]]:
    """Some samples, spread evenly over the data, each with a picture unless its image cannot be read any more."""
    spread = sub_batch(len(pairs), min(SAMPLES, len(pairs)))
    return [(pairs.sample(index), _picture(pairs, index)) for index in spread]


def _picture(pairs: PairSet, index: int) -> Picture | None:
    try:
        return thumbnail(pairs.image(index))
    except (DataError, ImageError):
        return None

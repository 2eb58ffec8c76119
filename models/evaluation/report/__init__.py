"""The report of an evaluation: one HTML page that needs no network, no script and no other file."""

from functools import cache
from pathlib import Path

from jinja2 import Template

from sds_clip.models.atomic import write_atomic
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.comparison import Comparison
from sds_clip.models.evaluation.paired import RESAMPLES
from sds_clip.models.evaluation.report import words
from sds_clip.models.evaluation.report.charts import QUANTILES, histogram
from sds_clip.models.evaluation.report.content import (
    BASELINE,
    MODEL,
    axis_limit,
    axis_mark,
    changes,
    model_name,
    provenance,
    scores,
    tag_changes,
    tag_scores,
)
from sds_clip.models.evaluation.report.gallery import IMAGES, galleries, pictures_of
from sds_clip.models.evaluation.results import GROUP_MATCH, Results
from sds_clip.models.pages import environment, render

__all__ = ["STYLE", "render_report", "write_report"]

_HERE = Path(__file__).parent
STYLE = _HERE / "style.css"
"""The style sheet, which the report of a run begins with too."""
_CONTENT = (axis_limit, axis_mark, changes, provenance, scores, tag_changes, tag_scores)


def write_report(
    folder: Path, results: Results, comparison: Comparison | None = None, baseline: Results | None = None
) -> Path:
    """Write `folder/report.html`, whole or not at all, and return its path.

    Raises:
        EvaluationError: the file cannot be written.
        ValueError: a comparison without its baseline, or the reverse.
    """
    html = render_report(results, comparison, baseline)
    file = folder / "report.html"
    try:
        write_atomic(file, html)
    except OSError as error:
        raise EvaluationError(
            f"{file} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from error
    return file


def render_report(
    results: Results, comparison: Comparison | None = None, baseline: Results | None = None
) -> str:
    """Return the page's HTML. Captions, tags and names are escaped, and its policy forbids scripts.

    Raises:
        ValueError: a comparison without its baseline, or the reverse.
    """
    if (comparison is None) != (baseline is None):
        raise ValueError("A comparison and its baseline belong together: give both or neither.")
    runs = [(MODEL, results)] if baseline is None else [(BASELINE, baseline), (MODEL, results)]
    same_scale = len({str(run.provenance.get("scorer")) for _, run in runs}) == 1
    shown = galleries(results, baseline, same_scale=same_scale)
    return render(
        _template(),
        STYLE,
        results=results,
        comparison=comparison,
        runs=runs,
        names={series: model_name(run, series) for series, run in runs},
        same_scale=same_scale,
        histogram=histogram(results.outcome, runs),
        galleries=shown,
        pictures=pictures_of(
            image for pairs in shown.values() for _, item in pairs for image in item.images[:IMAGES]
        ),
    )


@cache
def _template() -> Template:
    templates = environment(_HERE)
    templates.filters |= {function.__name__: function for function in words.FILTERS}
    templates.globals |= {
        **{function.__name__: function for function in _CONTENT},
        "GROUP_MATCH": GROUP_MATCH,
        "IMAGES": IMAGES,
        "QUANTILES": list(QUANTILES),
        "RESAMPLES": RESAMPLES,
    }
    return templates.get_template("page.html.jinja")

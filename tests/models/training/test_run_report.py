"""The report of a run: its curves, beside the control's, its configuration and samples."""

import json
from pathlib import Path

import pytest

from sds_clip.models.data.pairs import PairSet
from sds_clip.models.errors import TrainingError
from sds_clip.models.training.influence import teacher_had_no_say
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.report import SAMPLES, read_run, write_run_report
from sds_clip.models.training.report.charts import POINTS, charts, validation
from sds_clip.models.training.run import train
from sds_clip.models.training.watcher import Record
from tests.models.evaluation.test_report import Document
from tests.report_runs import ATTACK
from tests.training import PLACE, Stopper, configure


def record(step: int, **figures: float) -> Record:
    return {"step": step, "steps": 4, "clip": 1.0, **figures}


def save_run(folder: Path, records: list[Record], **config: object) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


def test_a_finished_run_has_a_report_and_a_stopped_one_has_none(parts: Parts, tmp_path: Path) -> None:
    control = train(configure(objective="clip"), parts, tmp_path / "control", PLACE)
    assert control.delta is not None
    out = tmp_path / "run"
    train(configure(), parts, out, PLACE, watcher=Stopper(lambda: True))
    assert not (out / "report.html").exists()

    train(configure(), parts, out, PLACE, resume=True, control=tmp_path / "control")
    page = Document((out / "report.html").read_text("utf-8"))

    curves = page.sections["Curves"]
    assert {"Loss", "L_CLIP", "L_SDS", "Gradient share", "Cosine of the gradients", "Residual gap"} <= set(
        curves
    )
    assert page.sections["Configuration"][1:4] == ["Option", "control", "run"]
    objective = page.sections["Configuration"].index("objective")
    assert page.sections["Configuration"][objective : objective + 3] == ["objective", "clip", "sds-clip"]
    assert len(page.all("img")) == SAMPLES
    assert all(image["alt"] in page.texts for image in page.all("img"))
    assert "Curves" in Document((tmp_path / "control" / "report.html").read_text("utf-8")).sections


def test_a_control_that_has_gone_costs_the_run_nothing_but_its_report(
    parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = train(configure(), parts, tmp_path / "run", PLACE, control=tmp_path / "gone")
    assert done.delta is not None
    assert any(done.delta.iterdir())
    assert not (tmp_path / "run" / "report.html").exists()
    assert "The run's report was not written" in caplog.text


def test_curves_of_run_and_control_share_their_scales() -> None:
    own = [record(step, loss=float(step), residual=2.0, residual_shuffled=2.5) for step in (2, 4)]
    control = [record(step, loss=5.0) for step in (2, 4)]

    loss, clip, gap = charts({"baseline": control, "model": own})

    assert (loss.title, loss.low, loss.high, loss.steps) == ("Loss", 2.0, 5.0, 4)
    assert loss.curves == {
        "baseline": [(0.5, 1.0), (1.0, 1.0)],
        "model": [(0.5, 0.0), (1.0, pytest.approx(2 / 3))],
    }
    assert loss.late == {"baseline": 5.0, "model": 4.0}
    assert (clip.title, clip.low, clip.high) == ("L_CLIP", 1.0, 1.0)
    assert (gap.title, gap.late) == ("Residual gap", {"model": 0.25})
    assert gap.low == 0.01  # the mark, which is on the scale too
    assert gap.mark == 0.0


def test_a_long_curve_is_thinned_to_means() -> None:
    long = [record(step, loss=float(step % 2)) for step in range(1, 10 * POINTS + 1)]
    (loss, _) = charts({"model": long})
    assert len(loss.curves["model"]) == POINTS
    assert {height for _, height in loss.curves["model"]} == {0.5}


def test_a_figure_that_is_not_finite_is_left_out() -> None:
    (loss, _) = charts({"model": [record(1, loss=float("nan")), record(2, loss=1.0)]})
    assert loss.curves["model"] == [(1.0, 0.0)]


def test_validation_has_the_base_the_control_and_the_run() -> None:
    found = validation(
        {
            "baseline": [record(4), {"step": 4, "validation_clip": 2.0, "base_validation_clip": 3.0}],
            "model": [{"step": 4, "validation_clip": 1.0, "base_validation_clip": 3.0}],
        }
    )
    assert found == {"clip": {"base": 3.0, "baseline": 2.0, "model": 1.0}}
    assert validation({"model": [record(4)]}) == {}


def test_text_from_outside_stays_text_and_the_page_loads_nothing(pairs: PairSet, tmp_path: Path) -> None:
    out = save_run(tmp_path / "run", [record(1, loss=1.0)], objective="clip", base=ATTACK)

    page = Document(write_run_report(out, pairs).read_text("utf-8"))

    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.elements)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert any(" ".join(ATTACK.split()) in text for text in page.texts)
    assert not any("None" in text for text in page.texts)


def test_a_warning_comes_first(pairs: PairSet, tmp_path: Path) -> None:
    records = [record(1, loss=1.0, teacher_gradient_share=0.01)]
    out = save_run(tmp_path / "run", records, objective="sds-clip", base="demo")
    page = Document(write_run_report(out, pairs, warning=teacher_had_no_say(records)).read_text("utf-8"))
    assert any(text.startswith("The teacher had no influence") for text in page.texts[:5])


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"its config\.yaml cannot be read. Give the --out folder"):
        read_run(tmp_path)
    with pytest.raises(TrainingError, match="yet"):
        read_run(save_run(tmp_path / "run", [], objective="clip"))

"""Runs on the demo's pairs with the default options, in which the teacher must have a say."""

from pathlib import Path

import pytest

from sds_clip.demo.experiment import Series
from sds_clip.demo.world import Split
from sds_clip.models.training.config import parse_config
from sds_clip.models.training.influence import influence_figures, teacher_had_no_say
from sds_clip.models.training.log import read_log
from sds_clip.models.training.processes import find_rank
from sds_clip.models.training.run import train
from sds_clip.models.training.watcher import Record


def logged(objective: str, folder: Path) -> list[Record]:
    config = parse_config({"objective": objective, "steps": 100, "teacher": "demo", "data": "demo-exact"})
    series = Series(Split.VALIDATION, "demo", work_dir=folder, outcomes=folder)
    train(config, series.parts(config), folder / objective, find_rank("cpu"))
    return list(read_log(folder / objective / "log.jsonl"))


@pytest.mark.long
@pytest.mark.parametrize("objective", ["sds-clip", "condition", "noise-contrast"])
def test_by_default_the_teacher_has_a_say(objective: str, tmp_path: Path) -> None:
    records = logged(objective, tmp_path)
    figures = influence_figures(records)
    print(objective, figures)
    assert teacher_had_no_say(records) is None
    assert figures["residual_gap"] > 0.02

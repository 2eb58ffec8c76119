"""Files that are read whole have a bound, whichever reader they are for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip.models import files
from sds_clip.models.data.coco import read_coco
from sds_clip.models.data.folder import read_folder
from sds_clip.models.errors import DataError, EvaluationError, ModelError
from sds_clip.models.evaluation.annotations import read_json
from sds_clip.models.evaluation.zero_shot import class_names

READERS: dict[str, tuple[str, Callable[[Path], object], type[ModelError]]] = {
    "json": ("a.json", lambda file: read_json(file, "a list"), EvaluationError),
    "coco": ("captions.json", read_coco, DataError),
    "classes": ("classes.txt", lambda file: class_names(str(file), None), EvaluationError),
    "folder": ("1.txt", lambda file: read_folder(file.parent), DataError),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_over_the_bound_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_name, read, error = READERS[name]
    (tmp_path / "1.png").touch()
    (tmp_path / file_name).write_text("0" * 101)
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 100)
    with pytest.raises(error, match=f"{file_name}.*101.*100"):
        read(tmp_path / file_name)


def test_a_file_at_the_bound_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(["one"]))
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", file.stat().st_size)
    assert read_json(file, "a list") == ["one"]

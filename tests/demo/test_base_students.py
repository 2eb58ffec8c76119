"""A base student is trained once, from its seed, and is there whole or not at all."""

from pathlib import Path

import pytest

from sds_clip.demo import base_students
from sds_clip.demo.base_students import student_of, train_base
from sds_clip.demo.train_student import Recipe
from sds_clip.models.checkpoints.load import load_clip

SHORT = Recipe(steps=1, batch_size=8)


@pytest.mark.long
def test_a_base_student_can_be_loaded_and_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train_base(3, tmp_path, by_contrast_alone=False, compiled=False, recipe=SHORT)
    assert load_clip(f"local-dir:{folder}", device="cpu", precision="float32").embed_dim == 192
    assert [each.name for each in tmp_path.iterdir()] == ["base-3"]
    monkeypatch.setattr(base_students, "build", lambda *_, **__: pytest.fail("It was trained again."))
    assert train_base(3, tmp_path, by_contrast_alone=False, compiled=False, recipe=SHORT) == folder


def test_a_student_by_contrast_alone_has_its_own_folder_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Recipe] = []

    def stop(_work: Path, _into: Path, recipe: Recipe, **_: object) -> None:
        asked.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(base_students, "build", stop)
    for alone in (False, True):
        with pytest.raises(KeyboardInterrupt):
            train_base(4, tmp_path, by_contrast_alone=alone, compiled=False)
        assert not student_of(4, tmp_path, by_contrast_alone=alone).exists()
    with_heads, alone = asked
    assert (with_heads.seed, alone.seed) == (4, 4)
    assert with_heads.heads_steps > 0
    assert alone.places_weight == alone.bindings_weight == alone.heads_steps == 0

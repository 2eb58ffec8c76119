from functools import partial
from pathlib import Path

import pytest

import sds_clip.demo.train_vae
from sds_clip.demo import build_teacher as build
from sds_clip.demo.emoji.build_teacher import items
from sds_clip.demo.emoji.lessons import PictureLessons
from sds_clip.demo.emoji.packages import SEEN
from sds_clip.demo.emoji.table import teacher_scores
from sds_clip.demo.train_teacher import TeacherRecipe
from sds_clip.demo.train_text_encoder import TextRecipe
from sds_clip.demo.train_vae import VaeRecipe
from tests.demo.emoji.worlds import little_world

SHORT = TeacherRecipe(steps=2, batch_size=4, pool_size=8, warmup_steps=1)


def test_a_teacher_of_pictures_is_built_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sds_clip.demo.train_vae, "SCALE_IMAGES", 8)
    monkeypatch.setattr(build, "TOKENIZER_CAPTIONS", 512)
    pictures = little_world()
    world = build.World(
        PictureLessons(pictures, SHORT.seed),
        partial(items, pictures=pictures, vendors=[each.name for each in SEEN], per_kind=2),
    )
    build.build_teacher(
        build.Build(SHORT, tmp_path / "teacher", tmp_path / "work"),
        world,
        VaeRecipe(steps=4, batch_size=4, warmup_steps=2),
        TextRecipe(steps=2, batch_size=4, warmup_steps=1),
    )
    found = dict(teacher_scores([f"local-dir:{tmp_path / 'teacher'}"], pictures, per_kind=2))
    assert [name.split(", ")[1] for name in found] == ["the held-out vendor", "the seen ones"]
    assert all({"places_match_940", "sizes_group"} < set(scores) for scores in found.values())

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sds_clip.models.checkpoints.load import CheckpointError
from sds_clip.models.data.negatives import hard_negatives
from sds_clip.models.data.pairs import PairSet, Sample, Subset, kind_of
from sds_clip.models.errors import ConfigError, DataError, TeacherError
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import Parts, WithNegatives, describe, load_parts, with_negatives
from tests.teachers import save_sd_teacher
from tests.training import PLACE, captions, configure, save_coco


def options(tiny_folder: Path, data: Path, teacher_folder: Path, **changes: object) -> FinetuneConfig:
    named: dict[str, object] = {
        "base": f"local-dir:{tiny_folder}",
        "data": data,
        "teacher": str(teacher_folder),
        "device": "cpu",
        "teacher_precision": "float32",
    }
    return configure(**(named | changes))


def test_everything_that_is_named_is_loaded(tiny_folder: Path, data: Path, teacher_folder: Path) -> None:
    said: list[str] = []
    config = options(tiny_folder, data, teacher_folder, val=data)
    parts = load_parts(config, PLACE, said.append)
    assert isinstance(parts.teacher, Teacher)
    assert parts.teacher.vae is None
    assert parts.base.precision == "float32"
    assert parts.validation is not None
    assert len(parts.pairs) == len(parts.validation) == 24
    for name, told in zip((config.base, "LayerNorm", str(config.teacher), "data"), said, strict=True):
        assert name in told


def test_validation_images_may_lie_elsewhere(
    tiny_folder: Path, data: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    val = save_coco(tmp_path / "val", 6, seed=1).rename(tmp_path / "captions_val.json")
    for chosen in ({"val_images": tmp_path / "val"}, {"images": data.parent, "val_images": tmp_path / "val"}):
        parts = load_parts(
            options(tiny_folder, data, teacher_folder, val=val, objective="clip", **chosen), PLACE
        )
        assert parts.validation is not None
        assert parts.validation.image(0).tobytes() == Image.open(tmp_path / "val" / "0.png").tobytes()
        assert parts.pairs.image(0).tobytes() == Image.open(data.parent / "0.png").tobytes()


def test_samples_that_are_left_out_are_said(tiny_folder: Path, teacher_folder: Path, tmp_path: Path) -> None:
    data = save_coco(tmp_path / "coco", 10)
    (data.parent / "7.png").unlink()
    said: list[str] = []
    config = options(tiny_folder, data, teacher_folder, objective="clip", max_bad_share=0.1)
    assert len(load_parts(config, PLACE, said.append).pairs) == 9
    assert "1 of 10" in said[-1]
    assert str(data) in said[-1]
    assert "7.png" in said[-1]


def test_of_validation_pairs_as_many_may_be_left_out_as_either_share_allows(
    tiny_folder: Path, data: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    val = save_coco(tmp_path / "val", 10)
    (val.parent / "7.png").unlink()
    config = options(tiny_folder, data, teacher_folder, objective="clip", val=val)
    with pytest.raises(DataError, match="1 of 10"):
        load_parts(config, PLACE)
    looser = config.model_copy(update={"max_bad_share": 0.1})
    for parts in (load_parts(config, PLACE, val_max_bad_share=0.1), load_parts(looser, PLACE)):
        assert parts.validation is not None
        assert len(parts.validation) == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"mapper_start": "ridge"},
        {"objective": "score", "negatives": "swap"},
    ],
)
def test_the_vae_is_loaded_where_images_are_encoded(
    changes: dict[str, object], tiny_folder: Path, data: Path, teacher_folder: Path
) -> None:
    teacher = load_parts(options(tiny_folder, data, teacher_folder, **changes), PLACE).teacher
    assert teacher is not None
    assert teacher.vae is not None


def test_the_teacher_has_the_run_s_guidance(tiny_folder: Path, data: Path, teacher_folder: Path) -> None:
    teacher = load_parts(options(tiny_folder, data, teacher_folder, guidance=3.0), PLACE).teacher
    assert teacher is not None
    assert teacher.guidance == 3.0


def test_the_control_loads_no_teacher(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    parts = load_parts(options(tiny_folder, data, tmp_path / "none", objective="clip"), PLACE)
    assert parts.teacher is None
    assert describe(parts)["teacher_version"] is None


def test_a_missing_teacher_is_named(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"none: there is no folder .*check the path"):
        load_parts(options(tiny_folder, data, tmp_path / "none"), PLACE)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"text_width": 16}, "width 32.* width 16|32 wide.* 16 wide"),
        ({"unet": {"in_channels": 9}}, "takes 9 channels and gives 4"),
        ({"unet": {"sample_size": (8, 16)}}, "sample_size"),
    ],
)
def test_a_wrong_shaped_teacher_is_refused(
    shapes: dict[str, Any], message: str, tiny_folder: Path, data: Path, tmp_path: Path
) -> None:
    folder = save_sd_teacher(tmp_path / "teacher", **shapes)
    with pytest.raises(TeacherError, match=message):
        load_parts(options(tiny_folder, data, folder), PLACE)


def test_a_vae_of_other_latents_is_refused(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    folder = save_sd_teacher(tmp_path / "teacher")
    other = save_sd_teacher(tmp_path / "other", latent_channels=8)
    (folder / "vae").rename(tmp_path / "vae")
    (other / "vae").rename(folder / "vae")
    with pytest.raises(TeacherError, match=r"8 channels .* 4"):
        load_parts(options(tiny_folder, data, folder, mapper_start="ridge"), PLACE)


def test_a_missing_base_and_missing_data_are_named(
    tiny_folder: Path, data: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_parts(options(tiny_folder, data, teacher_folder, base="local-dir:/nowhere"), PLACE)
    with pytest.raises(DataError, match=r"none\.csv"):
        load_parts(options(tiny_folder, tmp_path / "none.csv", teacher_folder), PLACE)


def test_swapped_negatives_are_those_of_each_caption(pairs: PairSet) -> None:
    options = {"negatives": "swap", "negatives_count": 2, "negatives_seed": 9}
    swapped = with_negatives(configure(**options, negatives_balance=False), pairs)
    assert [swapped.sample(index).negatives for index in range(24)] == [
        (hard_negatives(caption, 2, seed=9, index=index),) for index, caption in enumerate(captions(24))
    ]
    assert swapped.image(3).tobytes() == pairs.image(3).tobytes()
    assert swapped.content_hash == pairs.content_hash
    balanced = with_negatives(configure(**options), pairs)
    assert balanced.sample(1).negatives == (
        hard_negatives(captions(24)[1], 2, language=pairs.language, seed=9, index=1),
    )


def test_made_takes_every_kind_and_balance_leaves_out_of_the_data_what_text_alone_tells(
    pairs: PairSet,
) -> None:
    made = with_negatives(configure(negatives="made", negatives_count=20, negatives_balance=False), pairs)
    kinds = {kind_of(text).split()[0] for index in range(24) for text in made.sample(index).negatives[0]}
    assert kinds == {"swap", "replace", "shuffle"}

    class Told(Subset):
        def sample(self, index: int) -> Sample:
            nonsense = "left star of red a circle"
            return replace(super().sample(index), negatives=((super().sample(0).captions[0], nonsense),))

    told = Told(pairs, range(24))
    assert with_negatives(configure(negatives="data"), told) is told
    balanced = with_negatives(configure(negatives="data", negatives_balance=True), told)
    assert sum(len(balanced.sample(index).negatives[0]) for index in range(24)) < 0.6 * 48


def test_data_without_negatives_are_refused_where_theirs_are_asked_for(pairs: PairSet) -> None:
    with pytest.raises(ConfigError, match=r"no hard negative captions .*use negatives: swap"):
        with_negatives(configure(negatives="data"), pairs)


def test_candidates_that_would_be_left_out_are_refused_where_they_may_be_right(pairs: PairSet) -> None:
    tagged = WithNegatives(pairs, 3, 0)
    choice = {"objective": "score", "negatives": "data", "score_candidates": "negatives"}
    with pytest.raises(
        ConfigError, match=r"images with 3 candidates, and negatives_count is 2.* Use negatives_count: 3"
    ):
        with_negatives(configure(**choice, negatives_count=2), tagged)
    assert with_negatives(configure(**choice, negatives_count=3), tagged) is tagged
    with pytest.raises(ConfigError, match="no hard negative captions"):
        with_negatives(configure(**choice, negatives_count=3), pairs)
    others = with_negatives(configure(objective="clip", negatives="data", negatives_count=1), tagged)
    assert others is tagged


def test_captions_without_words_to_swap_are_refused(pairs: PairSet) -> None:
    class OneWord(Subset):
        def sample(self, index: int) -> Sample:
            return replace(super().sample(index), captions=("dog",))

    with pytest.raises(ConfigError, match="No caption of pairs has a hard negative by negatives: swap"):
        with_negatives(configure(negatives="swap"), OneWord(pairs, range(3)))


def test_what_a_result_depends_on_names_base_teacher_and_data(parts: Parts) -> None:
    described = describe(parts)
    assert described["data_size"] == 24
    assert parts.teacher is not None
    assert described["teacher_version"] == parts.teacher.version
    other = describe(replace(parts, base=replace(parts.base, version="other")))
    assert {name for name in described if described[name] != other[name]} == {"base_version"}

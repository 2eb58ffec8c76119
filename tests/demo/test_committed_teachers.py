"""The demo's teacher and placebo as they are committed: both small, and only the teacher tells captions apart."""

from pathlib import Path

import pytest

from sds_clip.demo.arms import PLACEBO
from sds_clip.demo.teacher import new_text_encoder, new_transformer, new_vae
from sds_clip.demo.teacher_tokenizer import load_teacher_tokenizer
from sds_clip.demo.teacher_validation import load_teacher_validation, match_scores
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.models.teacher.load import load_teacher

MAX_BYTES = 14_000_000
FOLDERS = (Path(__file__).parents[2] / "demo" / "teacher", Path(PLACEBO))
on_both = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@on_both
def test_it_is_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < MAX_BYTES


@on_both
def test_its_networks_are_those_of_the_code(folder: Path) -> None:
    teacher = load_teacher(str(folder), device="cpu", precision="float32", vae=True)
    tokenizer = load_teacher_tokenizer(folder / "tokenizer")
    for loaded, new in (
        (teacher.denoiser, new_transformer()),
        (teacher.text_encoders["text_encoder"], new_text_encoder(tokenizer)),
        (teacher.vae, new_vae()),
    ):
        assert {name: value.shape for name, value in loaded.state_dict().items()} == {
            name: value.shape for name, value in new.state_dict().items()
        }


def scores(reference: str, items: int) -> dict[str, float]:
    teacher = load_teacher(reference, device="cpu", precision="float32", vae=True)
    return match_scores(teacher, load_teacher_validation(teacher.vae, items_per_kind=items), draws_each=1)


def test_the_teacher_knows_who_is_where_and_what_belongs_to_what() -> None:
    """Half of the items would be right by chance; the README's figures are above these floors."""
    found = scores("demo", 20)
    assert min(found[f"{kind}_match"] for kind in KINDS) >= 0.9
    assert min(found[f"{kind}_group"] for kind in KINDS) >= 0.6


@pytest.mark.long
def test_the_placebo_knows_no_binding() -> None:
    """Chance is 50 %, and four standard errors at 40 items are 32 points."""
    found = scores(PLACEBO, 40)
    assert all(0.18 < found[f"{kind}_match"] < 0.82 for kind in KINDS)

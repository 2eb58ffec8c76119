"""The demo teacher as it is committed: small, and able to tell captions apart."""

from pathlib import Path

from demo.teacher import new_text_encoder, new_transformer, new_vae
from demo.teacher_tokenizer import load_teacher_tokenizer
from demo.teacher_validation import load_teacher_validation, match_scores
from demo.winoground_sets import KINDS
from models.teacher.load import load_teacher

FOLDER = Path(__file__).parents[2] / "demo" / "teacher"
MAX_BYTES = 14_000_000


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < MAX_BYTES


def test_its_networks_are_those_of_the_code() -> None:
    teacher = load_teacher("demo", device="cpu", precision="float32", vae=True)
    tokenizer = load_teacher_tokenizer(FOLDER / "tokenizer")
    for loaded, new in (
        (teacher.denoiser, new_transformer()),
        (teacher.text_encoder, new_text_encoder(tokenizer)),
        (teacher.vae, new_vae()),
    ):
        assert {name: value.shape for name, value in loaded.state_dict().items()} == {
            name: value.shape for name, value in new.state_dict().items()
        }


def test_it_knows_who_is_where_and_what_belongs_to_what() -> None:
    """Half of the items would be right by chance; the README's figures are above these floors."""
    teacher = load_teacher("demo", device="cpu", precision="float32", vae=True)
    scores = match_scores(teacher, load_teacher_validation(teacher.vae, items_per_kind=20), draws_each=1)
    assert min(scores[f"{kind}_match"] for kind in KINDS) >= 0.9
    assert min(scores[f"{kind}_group"] for kind in KINDS) >= 0.6

"""The demo teacher as it is committed: small, and able to tell captions apart."""

from pathlib import Path

from demo.teacher_validation import load_teacher_validation, match_scores
from models.teacher.load import load_teacher

FOLDER = Path(__file__).parents[2] / "demo" / "teacher"
MAX_BYTES = 14_000_000


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < MAX_BYTES


def test_its_error_tells_swapped_attributes_apart() -> None:
    """Half of the items would be right by chance; the README's figure is far above this floor."""
    teacher = load_teacher("demo", device="cpu", precision="float32", vae=True)
    scores = match_scores(teacher, load_teacher_validation(teacher.vae, items_per_kind=20), draws_each=1)
    assert scores["attributes_match"] > 0.85

"""What text alone tells of negatives. The captions are SugarCrepe's, with its licence beside them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float

from sds_clip.models.blind import Choice, blind_accuracy
from sds_clip.models.choices import NegativeKind
from sds_clip.models.data.blind_report import by_kind
from sds_clip.models.data.language import Language
from sds_clip.models.data.negatives import hard_negatives
from sds_clip.models.data.pairs import Negative

CAPTIONS = (Path(__file__).parent / "sugarcrepe" / "captions.txt").read_text(encoding="utf-8").splitlines()
COLOURS = ("red", "blue", "green", "white", "black")


def made(kind: NegativeKind, language: Language | None) -> list[Choice]:
    return [
        Choice(caption, caption, negative)
        for index, caption in enumerate(CAPTIONS)
        for negative in hard_negatives(caption, 1, kinds=(kind,), language=language, seed=0, index=index)
    ]


def test_word_that_only_negatives_have_is_told_and_a_fair_exchange_is_not() -> None:
    rare = [Choice(str(n), f"a {COLOURS[n % 5]} cup {n}", f"a mauve cup {n}") for n in range(200)]
    fair = [
        Choice(str(n), f"a {COLOURS[n % 5]} cup {n}", f"a {COLOURS[(n + n // 5 % 4 + 1) % 5]} cup {n}")
        for n in range(200)
    ]

    assert blind_accuracy(rare).accuracy > 0.95
    assert abs(blind_accuracy(fair).accuracy - 0.5) < 2 * blind_accuracy(fair).half_width


def test_reader_judges_only_what_it_has_not_learned() -> None:
    """The side of each text is drawn: a reader that had seen the choices themselves would know them all."""
    draw = np.random.default_rng(0)
    sides = draw.permutation(200) < 100
    choices = [Choice(str(n), f"x{n} y" if side else f"y{n} x", "z") for n, side in enumerate(sides)]
    unknown = [Choice(str(n), f"k{n} a", f"m{n} a") for n in range(200)]

    assert blind_accuracy(choices).accuracy > 0.95  # z is always wrong
    assert blind_accuracy(unknown).accuracy == pytest.approx(
        0.5, abs=0.05
    )  # no two choices differ in the same word


def test_embeddings_are_read_as_n_grams_are() -> None:
    choices = [Choice(str(n), f"right {n}", f"wrong {n}") for n in range(60)]

    def encode(texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        return np.array([[1.0, float("right" in text), float(len(text) % 3)] for text in texts])

    assert blind_accuracy(choices, encode).accuracy == 1.0
    assert blind_accuracy(choices, lambda texts: np.ones((len(texts), 2))).accuracy == 0.5


def test_choices_are_told_apart_by_kind() -> None:
    choices = [Choice("1", "a", Negative("b", "swap noun")), Choice("1", "a", "c")]

    assert {kind: len(of) for kind, of in by_kind(choices).items()} == {"data": 1, "swap noun": 1}
    assert blind_accuracy([]).items == 0


@pytest.mark.parametrize(
    ("kind", "before", "after", "kept"),
    [("swap", 0.75, 0.55, 0.45), ("move", 0.70, 0.57, 0.4), ("replace", 0.75, 0.65, 0.5)],
)
def test_balance_hides_from_text_alone_what_is_wrong_and_keeps_many(
    kind: NegativeKind, before: float, after: float, kept: float
) -> None:
    every, balanced = made(kind, None), made(kind, Language(CAPTIONS))

    assert blind_accuracy(every, most=len(every)).accuracy > before
    assert blind_accuracy(balanced, most=len(balanced)).accuracy < after
    assert len(balanced) > kept * len(every)

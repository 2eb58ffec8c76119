"""What the screening chooses: the best control first, then the best objective that keeps what the control has."""

import pytest

from sds_clip.demo.experiment import Outcome, Variant
from sds_clip.demo.measure import StudentScores
from sds_clip.demo.screening import choose

ARMS = [
    Variant.of("clip", steps=1, objective="clip"),
    Variant.of("clip-choice", steps=1, objective="clip", negatives="swap"),
    Variant.of("score", steps=1, objective="score", negatives="swap", control="clip-choice"),
    Variant.of(
        "score-placebo", steps=1, objective="score", negatives="swap", teacher="other", control="clip-choice"
    ),
    Variant.of("sds", steps=1, objective="sds-clip", control="clip"),
    Variant.of("sds-misled", steps=1, objective="sds-clip", misled=True, control="clip"),
    Variant.of("noise-contrast-1", steps=1, objective="noise-contrast", control="clip"),
]


def outcomes(**right: int) -> list[Outcome]:
    """Runs of arms by the number of items, of 100, that they have right; every other arm has 50."""
    return [
        run(arm.name, right.get(arm.name.replace("-", "_"), 50) + more, seed)
        for arm in ARMS
        for seed, more in ((0, -1), (1, 1))
    ]


def run(arm: str, right: int, seed: int, *, retrieval: float = 0.95, zero_shot: float = 0.9) -> Outcome:
    margins = [1.0 if number < right else -1.0 for number in range(100)]
    measured = StudentScores(["objects"] * 100, [True] * 100, [True] * 100, retrieval, zero_shot, margins)
    return Outcome(arm, "all", seed, "validation", 1.0, {}, measured, [])


def test_the_best_of_each_is_chosen() -> None:
    assert choose(ARMS, outcomes(clip_choice=60, score=70)) == ("clip-choice", "score")
    assert choose(ARMS, outcomes(clip=60, sds=58)) == ("clip", "sds")


def test_a_placebo_a_misled_teacher_and_a_later_arm_are_never_chosen() -> None:
    assert choose(ARMS, outcomes(score_placebo=90, sds_misled=90, noise_contrast_1=90, sds=55))[1] == "sds"


@pytest.mark.parametrize("lost", [{"retrieval": 0.93}, {"zero_shot": 0.88}])
def test_what_loses_more_than_a_point_is_not_chosen(lost: dict[str, float]) -> None:
    def with_loss(arm: str, found: list[Outcome]) -> list[Outcome]:
        kept = [each for each in found if each.variant != arm]
        return kept + [run(arm, 90, seed, **lost) for seed in (0, 1)]

    assert choose(ARMS, with_loss("score", outcomes(sds=55))) == ("clip", "sds")
    assert choose(ARMS, with_loss("clip-choice", outcomes(clip=55, sds=55))) == ("clip", "sds")


def test_a_screening_in_which_all_lose_too_much_says_so() -> None:
    lost = [run(arm.name, 60, seed, retrieval=0.5) for arm in ARMS if arm.informed for seed in (0, 1)]
    kept = [each for each in outcomes() if each.variant.startswith("clip")]
    with pytest.raises(ValueError, match="score, sds lose more than 1%"):
        choose(ARMS, kept + lost)

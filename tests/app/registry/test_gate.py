"""Is a version better? By hand: McNemar's one-sided p of g gains and l losses is P(X >= g), X ~ B(g + l, 1/2)."""

from sds_clip.app.registry.gate import CandidateScores, judge
from sds_clip.app.schemas.finetune import Thresholds
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results

STRICT = Thresholds()


def winoground(right: int, of: int = 20, *, first: int = 0, group: int = 5) -> Results:
    """Results in which GroupMatch is right for `right` items, from the `first` on, and the group score for `group`."""
    outcomes = [
        {"group": number < group, "group_match": first <= number < first + right} for number in range(of)
    ]
    items = tuple(
        ItemOutcome(str(number), correct, {name: 1.0 if value else -1.0 for name, value in correct.items()})
        for number, correct in enumerate(outcomes)
    )
    metrics = {"group_score": Metric(group / of, 0.0, 1.0, of)}
    return Results("winoground", "group_score", "group", metrics, {}, items, {"data_hash": "a"})


def with_metrics(benchmark: str, **values: float) -> Results:
    metrics = {name: Metric(float(value), 0.0, 1.0, 100) for name, value in values.items()}
    return Results(benchmark, next(iter(values)), "x", metrics, {}, (), {})


def zero_shot(acc1: float) -> Results:
    return with_metrics("zero-shot", acc1=acc1)


def retrieval(image: float, text: float) -> Results:
    return with_metrics("retrieval", **{"image_retrieval_recall@1": image, "text_retrieval_recall@1": text})


def measured(
    version: str, *results: Results, validation: tuple[float, float] | None = None
) -> CandidateScores:
    named = {f"{each.benchmark} {number}": each for number, each in enumerate(results)}
    names = ("validation_image_to_text", "validation_text_to_image")
    return CandidateScores(version, named, dict(zip(names, validation, strict=True)) if validation else {})


def test_five_gains_without_a_loss_are_enough_and_four_are_not() -> None:
    """p = 1/32 = 0.031, and 1/16 = 0.0625."""
    before = measured("a", winoground(5), zero_shot(0.5))
    five = judge(before, measured("b", winoground(10), zero_shot(0.5)), STRICT)
    assert five.promotes
    gain = five.figures["winoground"]["winoground 0"]["group_match"]
    assert (gain["p_better"], gain["baseline"], gain["model"]) == (1 / 32, 0.25, 0.5)
    four = judge(before, measured("b", winoground(9), zero_shot(0.5)), STRICT)
    assert not four.promotes
    assert "0.0625" in four.why
    assert judge(before, measured("b", winoground(9), zero_shot(0.5)), Thresholds(max_p=0.07)).promotes


def test_gains_that_losses_eat_up_are_not_enough() -> None:
    """Seven gained and two lost: (36 + 9 + 1) / 512 = 0.0898."""
    before, after = (
        measured("a", winoground(5), zero_shot(1)),
        measured("b", winoground(10, first=2), zero_shot(1)),
    )
    verdict = judge(before, after, STRICT)
    assert not verdict.promotes
    assert verdict.figures["winoground"]["winoground 0"]["group_match"]["p_better"] == 46 / 512


def test_group_score_alone_promotes_nothing() -> None:
    before = measured("a", winoground(10, group=0), zero_shot(1))
    assert not judge(before, measured("b", winoground(10, group=20), zero_shot(1)), STRICT).promotes


def test_group_score_may_stay_and_not_fall() -> None:
    before = measured("a", winoground(5), zero_shot(1))
    assert judge(before, measured("b", winoground(15, group=5), zero_shot(1)), STRICT).promotes
    fell = judge(before, measured("b", winoground(15, group=4), zero_shot(1)), STRICT)
    assert not fell.promotes
    group = fell.figures["winoground"]["winoground 0"]["group_score"]
    assert (group["baseline"], group["model"]) == (5 / 20, 4 / 20)
    lenient = judge(before, measured("b", winoground(15, group=4), zero_shot(1)), Thresholds(max_p=1))
    assert (lenient.promotes, lenient.figures) == (False, fell.figures)


def test_what_lies_under_chance_is_named_in_the_record_and_the_text() -> None:
    """Chance is 10 of 20 items by GroupMatch, and 3.33 by the group score."""
    before, after = winoground(5, group=2), winoground(12, group=3)
    verdict = judge(measured("a", before, zero_shot(1)), measured("b", after, zero_shot(1)), STRICT)
    assert verdict.promotes
    gain = verdict.figures["winoground"]["winoground 0"]
    under = ["group_match of the version in service", "group_score of the version in service",
             "group_score of the new version"]  # fmt: skip
    assert gain["under_chance"] == under
    assert (gain["group_match"]["chance"], gain["group_score"]["chance"]) == (1 / 2, 1 / 6)
    assert all(each in verdict.why for each in under)
    over = judge(
        measured("a", winoground(10, group=4), zero_shot(1)),
        measured("b", winoground(15, group=4), zero_shot(1)),
        STRICT,
    )
    assert over.figures["winoground"]["winoground 0"]["under_chance"] == []
    assert "version in service" not in over.why


def test_zero_shot_may_fall_by_one_point_and_no_more() -> None:
    before = measured("a", winoground(5), zero_shot(0.50), retrieval(0.9, 0.9))
    assert judge(before, measured("b", winoground(15), zero_shot(0.49), retrieval(0, 0)), STRICT).promotes
    worse = judge(before, measured("b", winoground(15), zero_shot(0.48), retrieval(1, 1)), STRICT)
    assert all(each in worse.why for each in ("zero-shot 1", "0.5000", "0.4800", "0.01"))


def test_retrieval_stands_in_for_zero_shot_and_validation_for_both() -> None:
    by_retrieval = measured("a", winoground(5), retrieval(0.5, 0.5), validation=(0.5, 0.5))
    better = measured("b", winoground(15), retrieval(0.47, 0.52), validation=(0, 0))  # a mean of 0.495
    assert judge(by_retrieval, better, STRICT).promotes
    by_validation = measured("a", winoground(5), validation=(0.5, 0.5))
    assert judge(by_validation, measured("b", winoground(15), validation=(0.48, 0.5)), STRICT).promotes
    assert not judge(by_validation, measured("b", winoground(15), validation=(0.47, 0.5)), STRICT).promotes


def test_every_winoground_set_must_be_better() -> None:
    before = measured("a", winoground(5), winoground(5), zero_shot(1))
    assert judge(before, measured("b", winoground(15), winoground(15), zero_shot(1)), STRICT).promotes
    assert not judge(before, measured("b", winoground(15), winoground(5), zero_shot(1)), STRICT).promotes


def test_nothing_to_compare_by_is_no_reason_to_promote() -> None:
    assert not judge(measured("a", winoground(5)), measured("b", winoground(15)), STRICT).promotes
    assert not judge(measured("a", zero_shot(0)), measured("b", zero_shot(1)), STRICT).promotes


def test_the_version_in_service_is_not_promoted_over_itself() -> None:
    same = measured("a", winoground(5), zero_shot(1))
    assert not judge(same, same, STRICT).promotes

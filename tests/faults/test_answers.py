"""Answers of other weights than were promoted are found, and stale ones are told from wrong ones."""

import pytest
import torch

from bench.faults.callers import Answer, what_is_wrong
from sds_clip.app.store.records import AliasAction, Promotion

SCORES = {"a": torch.tensor([[0.1, 0.2]]), "b": torch.tensor([[0.3, 0.4]]), "c": torch.tensor([[0.5, 0.6]])}


def move(generation: int, version: str) -> Promotion:
    """`default` was moved to a version, at 10 s times the generation."""
    at = 10.0 * generation
    return Promotion(
        id=generation,
        at=at,
        who="job",
        alias="default",
        action=AliasAction.PROMOTE,
        from_version=None,
        to_version=version,
        generation=generation,
        why="",
        metrics=None,
        job_id=None,
        forced=False,
    )


MOVES = {generation: move(generation, version) for generation, version in ((1, "a"), (2, "b"), (3, "c"))}


@pytest.mark.parametrize(
    ("version", "generation", "at", "scores", "is_right"),
    [
        ("a", 1, 15.0, "a", True),
        ("b", 2, 25.0, "b", True),
        ("a", 1, 25.0, "a", True),  # the one before: the new one is being loaded
        ("a", 1, 35.0, "a", False),  # two moves behind
        ("b", 2, 15.0, "b", False),  # not promoted yet
        ("a", 2, 25.0, "a", False),  # another version's generation
        ("c", 7, 35.0, "c", False),  # no generation of this alias
        ("b", 2, 25.0, "a", False),  # the base's scores under another name
    ],
)
def test_answer_is_right_only_with_version_generation_and_scores_of_what_was_promoted(
    version: str, generation: int, at: float, scores: str, is_right: bool
) -> None:
    answer = Answer("http://one", at, at + 0.1, version, generation, SCORES[scores] + 1e-6)
    assert (what_is_wrong(answer, MOVES, SCORES.__getitem__) is None) is is_right

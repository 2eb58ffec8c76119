"""The flood and its table, and a short run against a real service."""

import re
from pathlib import Path

import pytest

from bench import neighbours
from bench.flood import KINDS, outcome
from bench.load import Answer
from bench.neighbours import AGAIN, ALONE, Phase


def phase(*milliseconds: int, refused: int = 0) -> Phase:
    statuses = ["200"] * (len(milliseconds) - refused) + ["429"] * refused
    return Phase(
        [
            Answer(number, 0.0, ms / 1000, status, "")
            for number, (ms, status) in enumerate(zip(milliseconds, statuses, strict=True))
        ],
        {"200": 3, "429 max_queue_per_key": 1},
    )


def test_times_are_compared_with_those_alone_and_a_failed_request_never_ends() -> None:
    phases = {ALONE: phase(*range(10, 110, 10)), "texts": phase(*range(20, 220, 20)), AGAIN: phase(10, 20)}

    table = neighbours.table(phases)
    assert "| texts | 10 | 0 | 100 | 2.00 | 200 | 2.00 |" in table
    assert [target.met for target in neighbours.targets(phases)] == [True, True, True]
    assert "| texts | 3 x 200, 1 x 429 max_queue_per_key |" in neighbours.floods(phases)

    missed = neighbours.targets({**phases, "texts": phase(10, 10, refused=1)})
    assert [(target.value, target.met) for target in missed] == [(float("inf"), False), (1, False), (0, True)]
    broken = neighbours.targets(
        {**phases, "texts": Phase(phases["texts"].answers, {"500": 2, "500 internal": 1})}
    )
    assert [(target.value, target.met) for target in broken[1:]] == [(0, True), (3, False)]


def test_answers_to_the_flood_are_told_apart_by_their_limits() -> None:
    limit = b'{"error": {"code": "key_limit", "message": "This API key has reached its limit max_uploads_per_key, "}}'
    assert outcome(200, b"") == "200"
    assert outcome(429, limit) == "429 max_uploads_per_key"
    assert outcome(503, b'{"error": {"code": "buffers_full"}}') == "503 buffers_full"
    assert outcome(502, b"<html>") == "502"


@pytest.mark.long
def test_quick_run_floods_in_every_way_and_prints_what_came_of_it(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--seconds", "1", "--clients", "6", "--cache", str(tmp_path)]
    neighbours.main([*arguments, "--model", str(tiny_folder)])

    printed = capsys.readouterr().out
    times, answers = printed.split("| flood | answers to it |")
    assert all(f"| {name} | " in times for name in (ALONE, *KINDS, AGAIN))
    for kind, expected in (
        ("requests", " x 200"),
        ("texts", " x 429 max_items_per_s_per_key"),
        ("large images", "without answer at the end"),
        (
            "labels",
            r"x (503 classes_building|429 overloaded)",
        ),  # by whether a set waits longer than the flood
        ("bodies", "x 413 body_too_complex"),
        ("wrong keys", "x 401 unauthorized"),
        ("uploads", "x 422 invalid_request"),
        ("dry runs", " x 200"),
        ("lists", " x 200"),
        ("comparisons", " x 200"),
        ("routes without a key", " x 200"),
        ("jobs", " x 202"),
        ("streams", "6 x without answer at the end"),
    ):
        [row] = [line for line in answers.splitlines() if line.startswith(f"| {kind} |")]
        assert re.search(expected, row)
    assert "failed requests of the steady key: 0 (at most 0: met)" in printed

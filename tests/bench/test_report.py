from bench.report import Target, percentile, verdicts
from bench.serve import Row, table


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert percentile(values, 50) == 50
    assert percentile(values, 95) == 95
    assert percentile(values, 99) == 99
    assert percentile([3.0], 99) == 3
    assert percentile([1.0, 2.0], 0) == 1


def test_row_shows_its_median_rate_and_leaves_unmeasured_cells_empty() -> None:
    rows = [
        Row("a", "embed", "32", (10.0, 12.0, 11.0), (5.0,), "2 x b", 1320.4, 0.99995),
        Row("b", "embed", "1"),
    ]

    header, rule, first, second = table(rows).splitlines()

    assert header.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert first == "| a | embed | 32 | 11.0 (10.0 to 12.0) | 5.0 | 5.0 | 5.0 | 2 x b | 0.999950 | 1320 |"
    assert second == "| b | embed | 1 |  |  |  |  |  |  |  |"


def test_missed_target_says_so_in_both_directions() -> None:
    targets = [Target("fast", 2.0, 2.3, at_least=True), Target("slow", 1.3, 1.25, at_least=False)]

    assert not any(target.met for target in targets)
    assert verdicts(targets).count("MISSED") == 2
    assert Target("fast", 2.3, 2.3, at_least=True).met
    assert Target("slow", 1.25, 1.25, at_least=False).met

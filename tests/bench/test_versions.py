"""A short run of the benchmark of many versions, against real services."""

from pathlib import Path

import pytest

from bench import versions

pytestmark = pytest.mark.long


def test_quick_run_measures_throughput_memory_first_answers_and_the_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions.main(["--quick", "--cache", str(tmp_path)])

    said = capsys.readouterr().out
    for measured in (
        "10, evenly",
        "never loaded",
        "A further version in memory takes",
        "registered versions",
    ):
        assert measured in said

"""Short runs of the benchmark and of the soak of many versions, against real services."""

from pathlib import Path

import pytest

from bench import soak_versions, versions

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


def test_quick_soak_fails_no_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soak_versions.main(["--quick", "--cache", str(tmp_path)])

    assert "- failed requests: 0 (at most 0: met)" in capsys.readouterr().out

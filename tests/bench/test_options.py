from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.options import cache_option, option, parse


@dataclass(frozen=True)
class Plan:
    rounds: int = option(3, "Number of rounds.", quick=1)
    model: str = option("demo", "Model.")
    no_trainer: bool = option(False, "Let it rest.")
    cache: Path = cache_option()


def plan(*arguments: str) -> Plan:
    return parse(Plan, "bench.plan", None, arguments)


def test_quick_run_has_its_own_defaults_and_given_values_count_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = tmp_path.resolve() / ".cache" / "bench"

    assert plan() == Plan(3, "demo", False, cache)
    assert plan("--quick") == Plan(1, "demo", False, cache)
    assert plan("--quick", "--rounds", "5", "--no-trainer") == Plan(5, "demo", True, cache)


def test_help_tells_both_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan("--help")

    printed = " ".join(capsys.readouterr().out.split())
    assert "python -m bench.plan" in printed
    assert "Number of rounds. The default is 3, or 1 with --quick." in printed

"""A short run of the tenants against a real service."""

from pathlib import Path

import pytest

from bench import tenants

pytestmark = pytest.mark.long


def test_quick_run_gives_each_tenant_its_own_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tenants.main(["--quick", "--cache", str(tmp_path)])

    said = capsys.readouterr().out
    assert "- failed requests: 0 (at most 0: met)" in said
    assert "- answers of another's version: 0 (at most 0: met)" in said

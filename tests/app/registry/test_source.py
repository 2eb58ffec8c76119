"""Versions and reports in folders."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sds_clip.app.registry.source import FileReports, ProcessReport, find_folder, folders_begun
from sds_clip.models.checkpoints.references import is_prefix, is_version

ONE, TWO = "1" * 64, "2" * 64


def test_version_is_found_by_its_whole_hash_alone(tmp_path: Path) -> None:
    (tmp_path / "versions" / ONE).mkdir(parents=True)
    (tmp_path / "other").mkdir()
    root = tmp_path / "versions"
    assert find_folder(root, ONE) == root / ONE
    for name in (TWO, ONE[:12], "", ".", "../other", str(tmp_path), f"{ONE}/", ONE + "\n"):
        assert find_folder(root, name) is None


def test_folders_of_versions_are_found_by_their_beginning(tmp_path: Path) -> None:
    for name in (ONE, TWO, f"{ONE[:40]}.working", ONE[:32]):
        (tmp_path / name).mkdir()
    (tmp_path / ("1" * 63 + "2")).write_text("a file")

    assert folders_begun(tmp_path, ONE[:8]) == [ONE]
    assert folders_begun(tmp_path, "3" * 8) == []
    assert folders_begun(tmp_path / "none", ONE[:8]) == []


def test_beginning_of_a_version_has_eight_digits_at_least() -> None:
    assert is_prefix("0123abcd")
    assert is_prefix("a" * 63)
    for text in ("a" * 64, "a" * 7, "A" * 8, "abcdefgh", "abcdefab\n", ""):
        assert not is_prefix(text)


def test_only_sha_256_in_small_letters_has_the_form_of_a_version() -> None:
    assert is_version("0123456789abcdef" * 4)
    assert not is_version("A" * 64)
    assert not is_version("a" * 63)


def test_reports_are_replaced_and_forgotten(tmp_path: Path) -> None:
    reports = FileReports(tmp_path / "reports")
    with pytest.raises(FileNotFoundError):  # and not "nobody else lives"
        reports.read()
    now = time.time()
    reports.write(ProcessReport("one", now - 1000, {}))
    reports.write(ProcessReport("two", now - 5, {"a": 1}))
    reports.write(ProcessReport("two", now, {"a": 2}))
    assert list(reports.read()) == [ProcessReport("two", now, {"a": 2})]
    with pytest.raises(ValueError, match="name"):
        reports.write(ProcessReport("../two", now, {}))


def test_report_that_a_crashed_machine_left_incomplete_hides_no_other(tmp_path: Path) -> None:
    reports = FileReports(tmp_path)
    report = ProcessReport("two", time.time(), {})
    reports.write(report)
    for name, content in (("one", ""), ("three", "{}"), ("four", "[1]")):
        (tmp_path / f"{name}.json").write_text(content)
    assert list(reports.read()) == [report]


HOLD = """
import sys
from pathlib import Path
from sds_clip.app.registry.source import FileReports

lock = FileReports(Path(sys.argv[1])).enter("one")
print("entered", flush=True)
sys.stdin.read()
"""


def test_process_that_is_killed_is_listed_no_longer(tmp_path: Path) -> None:
    reports = FileReports(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"entered\n"
        report = ProcessReport("one", time.time(), {"host": socket.gethostname()})
        reports.write(report)
        assert [list(reports.read()) for _ in range(2)] == [[report]] * 2
        process.kill()
        process.wait()
        assert list(reports.read()) == []
        assert list(tmp_path.iterdir()) == []


def test_process_without_a_lock_that_is_seen_here_is_judged_by_the_age_of_its_report(tmp_path: Path) -> None:
    """The lock of another host may look free."""
    reports = FileReports(tmp_path)
    reports.enter("far").release()
    now = time.time()
    for name, host, at in (
        ("far", "another", now), ("lockless", socket.gethostname(), now), ("late", "another", now - 30),
    ):  # fmt: skip
        reports.write(ProcessReport(name, at, {"host": host}))
    assert [report.process for report in reports.read()] == ["far", "lockless"]


def test_lock_of_another_host_that_is_held_keeps_a_late_report(tmp_path: Path) -> None:
    reports = FileReports(tmp_path)
    with reports.enter("far"):
        reports.write(ProcessReport("far", time.time() - 30, {"host": "another"}))
        assert [report.process for report in reports.read()] == ["far"]

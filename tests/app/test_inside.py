"""Paths that are made from rows stay in the folders of this program."""

from pathlib import Path

import pytest

from sds_clip.app.errors import FilesOutside
from sds_clip.app.inside import inside, job_file, version_folder


@pytest.mark.parametrize("path", ["../victim", "..", ".", "", "a/../../victim", "/victim", "versions/../.."])
def test_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(FilesOutside, match="Correct the record"):
        inside(tmp_path / "jobs", tmp_path / "jobs" / path)


def test_link_below_the_folder_that_leads_out_of_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "jobs" / "a").mkdir(parents=True)
    (tmp_path / "jobs" / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "jobs" / "a" / "link").symlink_to("../../victim")
    for path in ("link", "link/file", "a/link", "a/link/../file"):
        with pytest.raises(FilesOutside):
            inside(tmp_path / "jobs", tmp_path / "jobs" / path)


def test_operator_whose_link_leads_out_is_told_of_the_link_and_not_to_correct_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bigdisk" / "a").mkdir(parents=True)
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "a").symlink_to(tmp_path / "bigdisk" / "a")
    monkeypatch.chdir(tmp_path)
    for data_dir in (tmp_path, Path()):
        with pytest.raises(FilesOutside, match=r"behind a link .* Move them back") as error:
            version_folder(data_dir, "versions/a")
        assert "Correct the record" not in error.value.message


def test_folder_may_be_a_link_to_another_disk_and_what_is_in_it_need_not_exist(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "versions").symlink_to(tmp_path / "disk")
    found = version_folder(tmp_path / "data", "versions/a")
    assert found == tmp_path / "data" / "versions" / "a"


@pytest.mark.parametrize("folder", ["jobs/a", "datasets/sets", "versions", "/etc"])
def test_version_is_in_no_other_folder_of_the_data(tmp_path: Path, folder: str) -> None:
    with pytest.raises(FilesOutside):
        version_folder(tmp_path, folder)


def test_file_of_a_job_is_in_the_jobs_own_folder(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    assert job_file(jobs, "a", jobs / "a" / "1" / "report.html").name == "report.html"
    for job, path in (("a", "b/1/report.html"), ("../victim", "../victim/file"), ("", "a/1/report.html")):
        with pytest.raises(FilesOutside):
            job_file(jobs, job, jobs / path)

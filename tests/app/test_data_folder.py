"""Which data folder belongs to a database, and which is refused."""

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from sds_clip.app.data_folder import ID_FILE, DataFolder, WrongDataFolder
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewVersion
from sds_clip.app.store.tables import data_folder
from tests.databases import KINDS, Databases


@pytest.fixture(params=KINDS)
def databases(request: pytest.FixtureRequest) -> Databases:
    made: Databases = request.getfixturevalue(f"{request.param}_databases")
    return made


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def right(store: Store, tmp_path: Path) -> Path:
    """The folder of the database, after a first start."""
    DataFolder(store.database, tmp_path / "right").check()
    return tmp_path / "right"


def id_of(store: Store) -> str | None:
    with store.database.reading() as connection:
        found: str | None = connection.execute(select(data_folder.c.id)).scalar_one_or_none()
    return found


def publish(store: Store, folder: Path) -> None:
    """A version whose files are in the data folder."""
    store.versions.register(NewVersion("a" * 64, "versions/a", {}, 1))
    (folder / "versions" / "a").mkdir(parents=True)


def forget(store: Store, folder: Path) -> None:
    """As the release before left them: without ids."""
    with store.database.writing() as connection:
        connection.execute(delete(data_folder))
    (folder / ID_FILE).unlink()


def test_first_start_gives_folder_and_database_one_id_that_every_process_accepts(
    store: Store, right: Path
) -> None:
    assert (right / ID_FILE).read_text().strip() == id_of(store)
    before = id_of(store)
    DataFolder(store.database, right).check()
    assert id_of(store) == before is not None


def test_processes_that_start_at_once_agree(store: Store, tmp_path: Path) -> None:
    folders = [DataFolder(store.database, tmp_path / "new") for _ in range(8)]
    with ThreadPoolExecutor() as threads:
        assert list(threads.map(lambda folder: folder.look(), folders)) == [True] * 8


@pytest.mark.parametrize("path", ["empty", "absent"])
def test_empty_or_absent_folder_beside_a_database_with_an_id_is_refused(
    store: Store, right: Path, path: str
) -> None:
    publish(store, right)
    right.with_name("empty").mkdir()
    told = r"it has no id, and the database has .* Mount the right folder"
    with pytest.raises(WrongDataFolder, match=told):
        DataFolder(store.database, right.with_name(path)).check()
    assert not (right.with_name(path) / ID_FILE).exists()
    DataFolder(store.database, right).check()


def test_empty_folder_is_refused_even_while_the_database_names_no_files(store: Store, right: Path) -> None:
    with pytest.raises(WrongDataFolder):
        DataFolder(store.database, right.with_name("unmounted")).check()


def test_folder_of_another_deployment_is_refused(store: Store, right: Path) -> None:
    right.with_name("other").mkdir()
    (right.with_name("other") / ID_FILE).write_text("another\n")
    with pytest.raises(WrongDataFolder, match="it has the id another"):
        DataFolder(store.database, right.with_name("other")).check()


def test_folder_that_cannot_be_read_is_refused(store: Store, right: Path) -> None:
    (right / ID_FILE).unlink()
    (right / ID_FILE).mkdir()
    with pytest.raises(WrongDataFolder, match=r"cannot be used as data folder \(Is a directory\)"):
        DataFolder(store.database, right).check()


def test_upgrade_takes_over_the_folder_that_has_the_files_and_refuses_any_other_before(
    store: Store, right: Path
) -> None:
    publish(store, right)
    forget(store, right)
    with pytest.raises(WrongDataFolder):  # even if the first process that is upgraded is the wrong one
        DataFolder(store.database, right.with_name("unmounted")).check()
    DataFolder(store.database, right).check()
    assert (right / ID_FILE).read_text().strip() == id_of(store)


def test_folder_that_was_copied_without_its_id_is_known_by_its_files(store: Store, right: Path) -> None:
    publish(store, right)
    shutil.copytree(right / "versions", right.with_name("copy") / "versions")
    DataFolder(store.database, right.with_name("copy")).check()
    assert (right.with_name("copy") / ID_FILE).read_text().strip() == id_of(store)


def test_new_database_takes_over_the_id_of_its_folder(store: Store, right: Path) -> None:
    before = id_of(store)
    with store.database.writing() as connection:
        connection.execute(delete(data_folder))
    DataFolder(store.database, right).check()
    assert id_of(store) == before


def test_folder_that_goes_away_and_comes_back_is_logged_once_each(
    store: Store, right: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sds_clip.app.data_folder")
    folder = DataFolder(store.database, right)
    right.rename(right.with_name("away"))
    for _ in range(2):
        assert not folder.look()
        told = "The data folder is not the data folder of the database: it has no id"
        assert str(folder.trouble).startswith(told)
    right.with_name("away").rename(right)
    assert folder.look()
    assert folder.look()
    assert folder.trouble is None
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_comparison_that_may_not_write_leaves_everything_as_it_is(store: Store, tmp_path: Path) -> None:
    DataFolder(store.database, tmp_path / "new").check(writes=False)
    assert id_of(store) is None
    assert not (tmp_path / "new").exists()

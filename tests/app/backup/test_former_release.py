"""The database and the files of a former release: they can be backed up before an upgrade, and are migrated later."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from sds_clip.app.backup.backup import write_backup
from sds_clip.app.backup.restore import restore_backup
from sds_clip.app.store.database import Database
from sds_clip.app.store.migrate import revision_of
from tests.app.backup.conftest import MakeSystem
from tests.app.backup.contents import rows_of
from tests.databases import KINDS
from tests.postgres import PostgreSQL

FIXTURES = Path(__file__).parents[2] / "upgrade" / "1414a10"


@pytest.fixture(params=KINDS)
def former(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """The fixture of a kind, and the URL of its database. The data folder is tmp_path / former."""
    fixture = FIXTURES / request.param
    with tarfile.open(fixture / "data.tar.gz") as tar:
        tar.extractall(tmp_path / "former", filter="data")
    if request.param == "sqlite":
        return fixture, f"sqlite:///{tmp_path / 'former' / 'sds-clip.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = server.create()
    server.restore(name, gzip.decompress((fixture / "database.sql.gz").read_bytes()).decode())
    return fixture, server.url(name)


@pytest.mark.parametrize("target", KINDS)
def test_a_former_release_is_backed_up_as_it_is_and_restored_into_this_one(
    former: tuple[Path, str], tmp_path: Path, make_system: MakeSystem, target: str
) -> None:
    fixture, url = former
    expected = json.loads((fixture / "expected.json").read_text())
    database, archive = Database(url, timeout_s=10), io.BytesIO()
    with database.reading() as connection:
        revision = revision_of(connection)
    rows = rows_of(database)
    assert write_backup(database, tmp_path / "former", archive).missing == []
    assert rows_of(database) == rows
    with database.reading() as connection:
        assert revision_of(connection) == revision
    database.close()

    system = make_system(target)
    restore_backup(io.BytesIO(archive.getvalue()), system.store.database, system.data_dir)
    system.store.migrate()
    for job in expected["jobs"].values():
        found = system.store.jobs.get(job["id"])
        assert (found.kind, found.status, found.result_version) == (
            job["kind"],
            job["status"],
            job["result_version"],
        )
    assert {alias.name: alias.version for alias in system.store.aliases.all()} == {
        name: alias["version"] for name, alias in expected["aliases"].items()
    }
    report = system.check()
    assert (list(report.problems), list(report.unnamed)) == ([], [])

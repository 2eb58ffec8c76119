"""`sds-clip backup` and `sds-clip restore`: the database, and the files that it names, as one archive."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sds_clip.database import open_database
from sds_clip.options import PATH, command, data_dir_option, read_settings
from sds_clip.table import say, size_text

if TYPE_CHECKING:
    from sds_clip.app.backup.backup import Holds
    from sds_clip.app.settings import Settings
    from sds_clip.app.store.database import Database

_STREAM = Path("-")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@command(
    extra="jobs",
    examples="""\
sds-clip backup backup.tar
sds-clip backup - --data-dir /data/sds-clip | gzip > backup.tar.gz
""",
)
@click.argument("file", metavar="FILE", type=PATH, help="Write this tar file, or `-` for standard output.")
@data_dir_option
def backup(file: Path, data_dir: Path | None) -> int:
    """Back up the database and the files that it names.

    The service and its workers may run meanwhile. The backup holds everything as of one moment: jobs with their events
    and metrics, data sets, versions, aliases and their history, and of jobs that may still continue the newest
    checkpoint. It does not hold keys, settings, your own checkpoints, or data that were registered where they are.

    The database is the one of SDS_CLIP_DATABASE_URL, or the SQLite file in --data-dir that `sds-clip up` uses. FILE
    appears when it is complete. The exit code is 1 if files were missing; `sds-clip check` names them.
    """
    settings = read_settings(data_dir=data_dir)
    from sds_clip.app.backup.backup import write_backup, write_backup_file

    if file.is_dir():
        raise click.ClickException(f"{file} is a folder. Name a file, such as {file / 'backup.tar'}.")
    with _told(), open_database(settings) as database:
        if file == _STREAM:
            holds = write_backup(database, settings.data_dir, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            holds = write_backup_file(database, settings.data_dir, file)
    name = "The backup" if file == _STREAM else str(file)
    say(f"{name} is complete. It holds {_contents(holds)}.")
    _say_missing(holds)
    return 1 if holds.missing else 0


@command(
    extra="jobs",
    examples="""\
sds-clip restore backup.tar --data-dir /data/new
gunzip -c backup.tar.gz | sds-clip restore -
""",
)
@click.argument("file", metavar="FILE", type=PATH, help="Read this tar file, or `-` for standard input.")
@data_dir_option
def restore(file: Path, data_dir: Path | None) -> int:
    """Restore a backup into an empty database.

    Stop the service and its workers first. The database must be empty, and --data-dir must have no versions, data sets
    and jobs. The database may be of another kind than the one that was backed up, and the data folder may have another
    path. A backup of an older release is migrated. Nothing is overwritten, and a restore that was killed can be
    repeated.

    The database is the one of SDS_CLIP_DATABASE_URL, or the SQLite file in --data-dir that `sds-clip up` uses.
    """
    settings = read_settings(data_dir=data_dir)
    from sds_clip.app.backup.restore import restore_backup

    with (
        _told(),
        open_database(settings, is_new=True) as database,
        nullcontext(sys.stdin.buffer) if file == _STREAM else file.open("rb") as source,
    ):
        holds = restore_backup(source, database, settings.data_dir)
        states = _states_ahead(settings, database)
    say(f"Restored {_contents(holds)}.")
    _say_missing(holds)
    for state in states:
        say(
            f"{state} was written by a service that has read newer aliases than those of the backup. That service "
            "would not follow the restored ones. Remove this file before you start it."
        )
    say("Check the files with `sds-clip check`, then start the system.")
    return 0


@contextmanager
def _told() -> Iterator[None]:
    """Turn errors that have told their user what to do into errors of the command line."""
    from sds_clip.app.backup.scratch import BackupError

    try:
        yield
    except BackupError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise click.ClickException(
            f"The disk is full ({error.strerror}), so nothing was kept. Free some space, and try again."
        ) from error


def _contents(holds: Holds) -> str:
    parts = {"jobs": "jobs", "datasets": "data sets", "versions": "versions"}
    counts = ", ".join(f"{holds.rows.get(table, 0)} {name}" for table, name in parts.items())
    return f"{counts}, and {size_text(holds.size_bytes)} in all"


def _say_missing(holds: Holds) -> None:
    for each in holds.missing:
        say(f"The files of the {each['what']} {each['id']} were missing when the backup was made.")


def _states_ahead(settings: Settings, database: Database) -> list[Path]:
    from sds_clip.app.registry.local_state import states_ahead
    from sds_clip.app.store.aliases import Aliases

    aliases = Aliases(database, lambda: 0.0).ever()
    folder = settings.state_dir or settings.data_dir / "state"
    return states_ahead(folder, aliases)

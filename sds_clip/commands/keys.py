"""`sds-clip keys`: the API keys that the service accepts."""

import contextlib
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import click

from sds_clip.options import data_dir_option, file_option, group, option, read_settings
from sds_clip.table import say, table


class _Moment(click.ParamType[datetime]):
    """A moment in the future: a number of days from now, as 90d, or a day."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = moment = datetime.now(UTC).replace(microsecond=0)
        days = re.fullmatch(r"(\d{1,5})d", value)
        with contextlib.suppress(ValueError):
            if days is None:
                moment = datetime.combine(date.fromisoformat(value), time(), UTC)
            else:
                moment += timedelta(days=int(days[1]))
        if moment <= now:
            self.fail("Name a number of days, such as 90d, or a day to come, such as 2027-01-31.", param, ctx)
        return moment


@group(
    examples="""\
sds-clip keys create phone --scope infer --keys-file keys.json
sds-clip keys create me --scope infer --scope admin
sds-clip keys create guest --expires 90d
sds-clip keys list
sds-clip keys delete phone
""",
)
def keys() -> None:
    """Create, list and delete API keys of the service."""


keys_file_option = file_option(
    "--keys-file",
    help="The keys file, which is created if needed (default: SDS_CLIP_KEYS_FILE, or keys.json in SDS_CLIP_DATA_DIR).",
)


@keys.command(extra="serve")
@click.argument(
    "name",
    metavar="NAME",
    help="A name for the key. The logs show this name, and you need it to revoke the key.",
)
@option(
    "--scope",
    multiple=True,
    type=click.Choice(["infer", "train", "admin"]),
    help="Give the key this scope. Repeat the option for several (default: infer).",
)
@option(
    "--expires",
    metavar="WHEN",
    type=_Moment(),
    help="Refuse the key after this many days, such as 90d, or from the beginning of this day, such as 2027-01-31, in "
    "UTC (default: never).",
)
@keys_file_option
def create(name: str, scope: Sequence[str], expires: datetime | None, keys_file: Path | None) -> int:
    """Create an API key.

    The key is printed once, on stdout. The file keeps only its SHA-256 hash. Callers send the key as
    `Authorization: Bearer KEY`; the client and `sds-clip` read it from SDS_CLIP_API_KEY.

    The scope infer allows matching, classifying and embedding. The scope train allows jobs, data sets,
    workers, and downloads of versions and logs. The scope admin allows promoting, rolling back and deleting
    versions. No scope includes another one.
    """
    from sds_clip.app.keys import create_key

    path = _file_of(keys_file)
    key = create_key(path, name, list(scope) or ["infer"], expires)
    print(key)
    is_set = keys_file is None and read_settings().keys_file is not None
    given = "" if is_set else f" --keys-file {shlex.quote(str(path))}"
    say(f"Added the key to {path}. It is not shown again. Serve with it: sds-clip up{given}")
    return 0


@keys.command("list", extra="serve")
@keys_file_option
@data_dir_option
def list_keys(keys_file: Path | None, data_dir: Path | None) -> int:
    """List the keys: their names and scopes, when they expire, and when they were last used, in UTC.

    The keys themselves are stored nowhere. The data folder has the last use of each key, to within five minutes.
    """
    from sds_clip.app.edge.key_uses import FOLDER, last_used
    from sds_clip.app.keys import read_keys

    uses = read_settings(data_dir=data_dir).data_dir / FOLDER
    rows = []
    for key in read_keys(_file_of(keys_file)):
        used_s = last_used(uses, key.sha256)
        used = None if used_s is None else datetime.fromtimestamp(used_s, UTC)
        shown = _shown(used) if uses.is_dir() else "unknown"
        rows.append([key.name, " ".join(key.scopes), _shown(key.expires_at), shown])
    print(table(("name", "scopes", "expires", "last used"), rows))
    if not uses.is_dir():
        say(
            f"No use of a key is noted in {uses.parent}. If a service uses them, name its folder with --data-dir."
        )
    return 0


@keys.command(extra="serve")
@click.argument("name", metavar="NAME", help="The key's name; `sds-clip keys list` shows it.")
@keys_file_option
def delete(name: str, keys_file: Path | None) -> int:
    """Delete an API key. The service refuses it within a second.

    What the key made stays. Only keys with the scope admin see it then.
    """
    from sds_clip.app.keys import delete_key

    path = _file_of(keys_file)
    delete_key(path, name)
    say(f"Deleted the key {name} from {path}.")
    return 0


def _shown(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _file_of(keys_file: Path | None) -> Path:
    settings = read_settings(keys_file=keys_file)
    return settings.keys_file or settings.data_dir / "keys.json"

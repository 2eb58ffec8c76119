"""`sds-clip check`: whether the files that the database names are there and whole."""

import json
from dataclasses import asdict
from pathlib import Path

from sds_clip.database import open_database
from sds_clip.options import command, data_dir_option, json_option, option, read_settings
from sds_clip.table import say, tell


@command(
    extra="jobs",
    examples="""\
sds-clip check
sds-clip check --quick --json --data-dir /data/sds-clip
""",
)
@data_dir_option
@option(
    "--quick",
    is_flag=True,
    help="Compute no hashes: look only whether the files are there, with their sizes.",
)
@json_option
def check(data_dir: Path | None, quick: bool, as_json: bool) -> int:
    """Compare the database with the files that it names.

    Every version, uploaded data set, report and checkpoint must be there and whole, and every alias must point to a
    version that is there. Hashes are computed of versions, data sets and checkpoints. Data sets that an older release
    has unpacked have no hashes; of these, only the folder is looked for. The service and its workers may run meanwhile.

    Each problem is printed with what to do. Folders that the database does not know are listed too, but are no problem.
    The exit code is 1 if there are problems. If the data folder is not the one of the database, nothing is compared.
    """
    settings = read_settings(data_dir=data_dir)
    from sds_clip.app.backup.integrity import check_integrity

    with open_database(settings) as database:
        report = check_integrity(database, settings.data_dir.absolute(), is_quick=quick)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        for problem in report.problems:
            tell(f"{problem.what} {problem.id}: {problem.problem}")
        for folder in report.unnamed:
            tell(f"{settings.data_dir / folder}: the database does not know this folder.")
        counts = ", ".join(f"{what} ({count})" for what, count in report.checked.items())
        say(f"Checked: {counts}. Problems: {len(report.problems)}.")
    return 1 if report.problems else 0

"""`sds-clip track` sends what a run has logged to a tracker that lacks it."""

from pathlib import Path

import click

from sds_clip.extras import TRACKERS
from sds_clip.options import PATH, command, option, require_tracker
from sds_clip.run_file import read_options
from sds_clip.table import say


@command(
    extra="train",
    examples="""\
sds-clip track runs/sds --log-to mlflow
sds-clip track runs/sds/log.jsonl --log-to tensorboard
""",
)
@click.argument("run", type=PATH, metavar="RUN", help="The folder of a run, or the log.jsonl in it.")
@option(
    "--log-to",
    required=True,
    type=click.Choice(TRACKERS),
    help="Send to this tracker: to TensorBoard, by event files in RUN/tensorboard, or to MLflow, at "
    "MLFLOW_TRACKING_URI. Each needs the extra of its name.",
)
def track(run: Path, log_to: str) -> int:
    """Send a run's log to a tracker that does not have all of it.

    It may have been away, or too slow for a short run, or the run had none. Every figure is sent once: what the tracker
    has of this run already is left out, so that the command can be repeated.
    """
    require_tracker(log_to, f"--log-to {log_to}")
    from sds_clip.models.errors import first_line
    from sds_clip.models.run_files import CONFIG_FILE, LOG_FILE
    from sds_clip.models.training.log import locked, read_log, writing
    from sds_clip.models.training.trackers import make_tracker, run_id
    from sds_clip.models.training.tracking import Outcome, figures

    log = run / LOG_FILE if run.is_dir() else run
    folder = log.parent
    if not (records := list(read_log(log))):
        raise click.ClickException(_why_empty(run, log))
    config = read_options(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    with locked(log):
        with writing(folder):
            key = run_id(folder, resumed=True)
        tracker = make_tracker(
            log_to, name=folder.absolute().name, key=key, folder=folder / "tensorboard", adds=True
        )
        try:
            tracker.begin(config)
            sent = sum(map(tracker.log, records))
            tracker.end(Outcome.FINISHED if (folder / "delta").exists() else Outcome.KILLED)
        except Exception as error:
            raise click.ClickException(
                f"{log_to} failed ({type(error).__name__}: {first_line(error)}). The same command sends what it lacks."
            ) from error
    rest = sum(len(list(figures(record))) for record in records) - sent
    say(f"Sent to {log_to}: {sent} figures." + f" It had the other {rest} of {folder} already." * bool(rest))
    return 0


def _why_empty(run: Path, log: Path) -> str:
    from sds_clip.models.run_files import CONFIG_FILE, LOG_FILE

    if log.name == LOG_FILE and (log.exists() or (log.parent / CONFIG_FILE).exists()):
        return f"The run in {log.parent} has logged nothing yet. Repeat the command once it has."
    what = f"{log} has no records" if run.exists() else f"{run} does not exist"
    return f"{what}. Name the folder of a run of `sds-clip finetune`, or its log.jsonl."

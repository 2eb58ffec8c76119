"""`sds-clip jobs`: the jobs of a service."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from sds_clip.options import Commands
from sds_clip.remote import (
    add_actions,
    add_limit_option,
    add_server_options,
    connect,
    moment,
    print_fields,
    print_json,
    print_lines,
)
from sds_clip.table import printable, table

if TYPE_CHECKING:
    from sds_clip.client import Job
    from sds_clip.client.record import JobRecord

_EPILOG = """\
examples:
  sds-clip jobs list --status running
  sds-clip jobs watch JOB
  sds-clip jobs pause JOB
  sds-clip jobs log JOB | jq -r '[.step, .loss] | @tsv'
  sds-clip jobs retry JOB
  sds-clip jobs show JOB --json | jq .error
"""

_ACTIONS = {
    "cancel": (
        "cancel a job",
        "Cancel a job; one that runs stops within a minute and makes no version.",
    ),
    "pause": (
        "pause a job",
        "Pause a job; one that runs writes a checkpoint first, and leaves its worker free.",
    ),
    "resume": ("go on with a paused job", "Queue a paused job again; it goes on from its checkpoint."),
    "retry": (
        "take up a job that failed or was cancelled",
        "Take up a failed or cancelled job; it goes on from its newest checkpoint, or from the start without one.",
    ),
    "delete": (
        "remove the files of a job that has ended",
        "Remove the files of a job that has ended, checkpoints among them; its record and its version stay.",
    ),
}


def add(commands: Commands) -> None:
    """Declare the command."""
    action = add_actions(
        commands,
        "jobs",
        "see and steer the jobs of a service",
        description="See and steer the fine-tuning and evaluation jobs of a service.",
        epilog=_EPILOG,
    )
    listing = action("list", "list jobs", "List jobs, the newest first.")
    listing.add_argument("--kind", choices=("finetune", "evaluate"), help="only those of a kind")
    listing.add_argument(
        "--status", metavar="STATUS", help="only those that are queued, running, failed, ..."
    )
    add_limit_option(listing)
    add_server_options(listing)
    listing.set_defaults(run=run_list)
    show = action("show", "show a job", "Show all about a job.")
    watch = action(
        "watch",
        "follow a job to its end",
        "Follow a job to its end; the exit code is 1 where it fails or is cancelled. Ctrl-C leaves the job as it is.",
    )
    log = action(
        "log",
        "print a fine-tuning job's log",
        "Print the log of a fine-tuning job's run as JSON lines, as far as it is written.",
    )
    show.set_defaults(run=run_show)
    log.set_defaults(run=run_log)
    watch.set_defaults(run=run_watch)
    steering = [action(name, *said) for name, said in _ACTIONS.items()]
    for name, steer in zip(_ACTIONS, steering, strict=True):
        steer.set_defaults(run=run_action, action=name)
    for parser in (show, log, watch, *steering):
        parser.add_argument("job", metavar="JOB", help="its id")
        add_server_options(parser)


def run_list(args: argparse.Namespace) -> int:
    """Print a line for each job."""
    with connect(args) as client:
        jobs = client.jobs(kind=args.kind, status=args.status, limit=args.limit)
    if args.json:
        print_json([job.info for job in jobs])
        return 0
    rows = [
        [job.id, job.kind, job.status, _progress(job.info), moment(job.info["created_at"]), _about(job)]
        for job in jobs
    ]
    print(table(["job", "kind", "status", "progress", "created", "about"], rows))
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print all about a job."""
    with connect(args) as client:
        _print(client.job(args.job), as_json=args.json)
    return 0


def run_log(args: argparse.Namespace) -> int:
    """Print every record."""
    with connect(args) as client:
        print_lines(client.job(args.job).log())
    return 0


def run_watch(args: argparse.Namespace) -> int:
    """Follow a job; 1 where it does not succeed."""
    from sds_clip.client.errors import JobFailed

    with connect(args) as client:
        job = client.job(args.job)
        with contextlib.suppress(JobFailed):
            job.wait(progress=sys.stderr.isatty())
        _print(job, as_json=args.json)
    return 0 if job.status == "succeeded" else 1


def run_action(args: argparse.Namespace) -> int:
    """Ask it of a job, and print what the job is then."""
    with connect(args) as client:
        job = client.job(args.job)
        getattr(job, args.action)()
    if args.json:
        print_json(job.info)
    elif args.action == "delete":
        print(f"the files of {job.id}, which is {job.status}, are removed")
    else:
        print(f"{job.id} is {_status(job)}")
    return 0


def _print(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job.info)
        return
    info = job.info
    error = job.error and f"{job.error['message']} ({job.error['code']})"
    reason = info.get("pause_reason")
    metrics = info.get("metrics")
    print_fields(
        {
            "job": job.id,
            "kind": job.kind,
            "about": _about(job),
            "status": _status(job),
            "progress": _progress(info) or None,
            "attempt": f"{info['attempt']} of {info['max_attempts']}",
            "interruptions": info["interruptions"] or None,
            "created": moment(info["created_at"]),
            "started": moment(info["started_at"]),
            "finished": moment(info["finished_at"]),
            "estimated finish": moment(info["estimated_finish"]),
            "metrics": metrics and _numbers(metrics["values"]),
            **result_fields(job),
            "version": job.version,
            "report": info["report"],
            "error": error,
            "paused because": reason and f"{reason['message']} ({reason['code']})",
            "files removed": moment(info["files_removed_at"]),
        }
    )
    for change in info.get("transitions") or []:
        print(f"{moment(change['at'])}  {change['to_status']}  {printable(change['message'])}".rstrip())


def result_fields(job: JobRecord) -> dict[str, str]:
    """An evaluation's headline figure and GroupMatch, why a version was promoted or not, and warnings."""
    result = job.result or {}
    found = {}
    if (primary := result.get("primary")) is not None:
        for name in (primary, "group_match"):
            if name in result["metrics"]:
                found[name] = _figure(result["metrics"][name])
    if (promotion := result.get("promotion")) is not None:
        found["promoted"] = f"{'yes' if promotion['promoted'] else 'no'}: {promotion['why']}"
    for warning in result.get("warnings", []):
        found["warning"] = f"{warning['message']} ({warning['code']})"
    return found


def _figure(metric: dict[str, Any]) -> str:
    """A share with its chance and, of GroupMatch, its d'; a job of an earlier release has neither."""
    more = [f"chance {100 * metric['chance']:.2f} %"] if "chance" in metric else []
    more += [f"d' {metric['d_prime']:.2f}"] if "d_prime" in metric else []
    return f"{100 * metric['value']:.2f} %" + (f" ({', '.join(more)})" if more else "")


def _status(job: Job) -> str:
    if not job.info["no_worker"]:
        return job.status
    return f"{job.status} (no worker is alive: start one with `sds-clip worker --queue {job.kind}`)"


def _about(job: Job) -> str:
    info = job.info
    if job.kind == "finetune":
        return f"{info['objective']} on {info['base']}"
    return f"{info['benchmark']} of {info['model'] or info['teacher']}"


def _progress(info: dict[str, Any]) -> str:
    progress = info["progress"]
    if progress["steps"] is None:
        return f"{info['stage'] or ''} {progress['step'] or ''}".strip()
    return f"{info['stage'] or ''} {progress['step']}/{progress['steps']}".strip()


def _numbers(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)

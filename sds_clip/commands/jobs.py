"""`sds-clip jobs` and `sds-clip workers`: the jobs of a service, and who runs them."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import Command, Group, option
from sds_clip.remote import (
    connect,
    limit_option,
    moment,
    print_fields,
    print_json,
    print_lines,
    server_options,
)
from sds_clip.table import printable, table

if TYPE_CHECKING:
    from sds_clip.client import Job
    from sds_clip.client.record import JobRecord

_ACTIONS = {
    "cancel": "Cancel a job. One that runs stops within a minute and makes no version.",
    "pause": "Pause a job. One that runs writes a checkpoint first, and leaves its worker free.",
    "resume": "Go on with a paused job. It is queued again, and goes on from its checkpoint.",
    "retry": "Take up a job that failed or was cancelled. It goes on from its newest checkpoint, or from the start "
    "without one.",
    "delete": "Remove the files of a job that has ended. Its checkpoints go; its record and its version stay.",
}
"""Named as the methods of `sds_clip.Job`."""

job_argument = click.argument("job_id", metavar="JOB", help="Its id.")


@click.group(
    cls=Group,
    examples="""\
sds-clip jobs list --status running
sds-clip jobs watch JOB
sds-clip jobs pause JOB
sds-clip jobs log JOB | jq -r '[.step, .loss] | @tsv'
sds-clip jobs retry JOB
sds-clip jobs show JOB --json | jq .error
""",
)
def jobs() -> None:
    """See and steer the fine-tuning and evaluation jobs of a service."""


@jobs.command("list")
@option("--kind", type=click.Choice(["finetune", "evaluate"]), help="List jobs of this kind alone.")
@option("--status", metavar="STATUS", help="List those alone that are queued, running, failed, ...")
@limit_option
@server_options
def list_jobs(kind: str | None, status: str | None, limit: int, url: str | None, as_json: bool) -> int:
    """List jobs, the newest first."""
    with connect(url) as client:
        found = client.jobs(kind=kind, status=status, limit=limit)
    if as_json:
        print_json([job.info for job in found])
        return 0
    rows = [
        [job.id, job.kind, job.status, _progress(job.info), moment(job.info["created_at"]), _about(job)]
        for job in found
    ]
    print(table(["job", "kind", "status", "progress", "created", "about"], rows))
    return 0


@jobs.command()
@job_argument
@server_options
def show(job_id: str, url: str | None, as_json: bool) -> int:
    """Show all about a job."""
    with connect(url) as client:
        _print(client.job(job_id), as_json=as_json)
    return 0


@jobs.command()
@job_argument
@server_options
def log(job_id: str, url: str | None, as_json: bool) -> int:
    """Print a fine-tuning job's log as JSON lines.

    The log is printed as far as it is written.
    """
    with connect(url) as client:
        print_lines(client.job(job_id).log())
    return 0


@jobs.command()
@job_argument
@server_options
def watch(job_id: str, url: str | None, as_json: bool) -> int:
    """Follow a job to its end.

    The exit code is 1 where it fails or is cancelled. Ctrl-C leaves the job as it is.
    """
    from sds_clip.client.errors import JobFailed

    with connect(url) as client:
        job = client.job(job_id)
        with contextlib.suppress(JobFailed):
            job.wait(progress=sys.stderr.isatty())
        _print(job, as_json=as_json)
    return 0 if job.status == "succeeded" else 1


def _add_action(name: str, text: str) -> None:
    @jobs.command(name, help=text)
    @job_argument
    @server_options
    def act(job_id: str, url: str | None, as_json: bool) -> int:
        with connect(url) as client:
            job = client.job(job_id)
            getattr(job, name)()
        if as_json:
            print_json(job.info)
        elif name == "delete":
            print(f"the files of {job.id}, which is {job.status}, are removed")
        else:
            print(f"{job.id} is {_status(job)}")
        return 0


for _name, _text in _ACTIONS.items():
    _add_action(_name, _text)


@click.command(
    cls=Command,
    examples="""\
sds-clip workers
sds-clip workers --json | jq '.[] | select(.alive)'
""",
)
@server_options
def workers(url: str | None, as_json: bool) -> int:
    """See who runs jobs.

    Lists the workers that a service has had in the last day: which queue each takes jobs of, whether it is alive, and
    the job that it has.
    """
    with connect(url) as client:
        found = client.workers()
    if as_json:
        print_json(found)
        return 0
    rows = [
        [
            worker["id"],
            worker["queue"],
            "yes" if worker["alive"] else "no",
            worker["device"],
            worker["version"],
            moment(worker["started_at"]),
            moment(worker["seen_at"]),
            worker["job"],
        ]
        for worker in found
    ]
    print(table(["worker", "queue", "alive", "device", "version", "started", "seen", "job"], rows))
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

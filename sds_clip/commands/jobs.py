"""`sds-clip jobs` and `sds-clip workers`: a service's jobs and its workers."""

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
    remote,
    server_options,
)
from sds_clip.table import printable, table

if TYPE_CHECKING:
    from sds_clip.client import Client

# Keys are method names of `sds_clip.Job`.
_ACTIONS = {
    "cancel": "Cancel a job. One that runs stops within a minute and makes no version.",
    "pause": "Pause a job. One that runs writes a checkpoint first, and leaves its worker free.",
    "resume": "Go on with a paused job. It is queued again, and goes on from its checkpoint.",
    "retry": "Take up a job that failed or was cancelled. It goes on from its newest checkpoint, or from the start "
    "without one.",
    "delete": "Remove the files of a job that has ended. Its checkpoints go; its record and its version stay.",
}

job_argument = click.argument("job_id", metavar="JOB", help="Its id.")


def _print_list(found: list[dict[str, Any]]) -> None:
    rows = [
        [job["id"], job["kind"], job["status"], _progress(job), moment(job["created_at"]), _about(job)]
        for job in found
    ]
    print(table(["job", "kind", "status", "progress", "created", "about"], rows))


def _print(info: dict[str, Any]) -> None:
    error, reason = info["error"], info.get("pause_reason")
    metrics = info.get("metrics")
    print_fields(
        {
            "job": info["id"],
            "kind": info["kind"],
            "about": _about(info),
            "status": _status(info),
            "progress": _progress(info) or None,
            "attempt": f"{info['attempt']} of {info['max_attempts']}",
            "interruptions": info["interruptions"] or None,
            "created": moment(info["created_at"]),
            "started": moment(info["started_at"]),
            "finished": moment(info["finished_at"]),
            "estimated finish": moment(info["estimated_finish"]),
            "metrics": metrics and _numbers(metrics["values"]),
            **result_fields(info["result"]),
            "version": info["result_version"],
            "report": info["report"],
            "error": error and f"{error['message']} ({error['code']})",
            "paused because": reason and f"{reason['message']} ({reason['code']})",
            "files removed": moment(info["files_removed_at"]),
        }
    )
    for change in info.get("transitions") or []:
        print(f"{moment(change['at'])}  {change['to_status']}  {printable(change['message'])}".rstrip())


def result_fields(result: dict[str, Any] | None) -> dict[str, str]:
    """An evaluation's main metric and GroupMatch, the reason for promoting or not, and warnings."""
    result = result or {}
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
    """A share with its chance level and, for GroupMatch, d'. Jobs of earlier releases have neither."""
    more = [f"chance {100 * metric['chance']:.2f} %"] if "chance" in metric else []
    more += [f"d' {metric['d_prime']:.2f}"] if "d_prime" in metric else []
    return f"{100 * metric['value']:.2f} %" + (f" ({', '.join(more)})" if more else "")


def _status(info: dict[str, Any]) -> str:
    if not info["no_worker"]:
        return str(info["status"])
    return f"{info['status']} (no worker is alive: start one with `sds-clip worker --queue {info['kind']}`)"


def _about(info: dict[str, Any]) -> str:
    if info["kind"] == "finetune":
        return f"{info['objective']} on {info['base']}"
    return f"{info['benchmark']} of {info['model'] or info['teacher']}"


def _progress(info: dict[str, Any]) -> str:
    progress = info["progress"]
    if progress["steps"] is None:
        return f"{info['stage'] or ''} {progress['step'] or ''}".strip()
    return f"{info['stage'] or ''} {progress['step']}/{progress['steps']}".strip()


def _numbers(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)


def _print_deleted(info: dict[str, Any]) -> None:
    print(f"the files of {info['id']}, which is {info['status']}, are removed")


def _print_status(info: dict[str, Any]) -> None:
    print(f"{info['id']} is {_status(info)}")


def _print_workers(found: list[dict[str, Any]]) -> None:
    header = ["worker", "queue", "alive", "device", "version", "started", "seen", "job"]
    rows = []
    for each in found:
        times = moment(each["started_at"]), moment(each["seen_at"])
        alive = "yes" if each["alive"] else "no"
        rows.append([each["id"], each["queue"], alive, each["device"], each["version"], *times, each["job"]])
    print(table(header, rows))


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
@remote(_print_list)
def list_jobs(client: Client, kind: str | None, status: str | None, limit: int) -> Any:
    """List jobs, the newest first."""
    return [job.info for job in client.jobs(kind=kind, status=status, limit=limit)]


@jobs.command()
@job_argument
@remote(_print)
def show(client: Client, job_id: str) -> Any:
    """Show all about a job."""
    return client.job(job_id).info


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
    print_json(job.info) if as_json else _print(job.info)
    return 0 if job.status == "succeeded" else 1


def _add_action(name: str, text: str) -> None:
    @jobs.command(name, help=text)
    @job_argument
    @remote(_print_deleted if name == "delete" else _print_status)
    def act(client: Client, job_id: str) -> Any:
        job = client.job(job_id)
        getattr(job, name)()
        return job.info


for _name, _text in _ACTIONS.items():
    _add_action(_name, _text)


@click.command(
    cls=Command,
    examples="""\
sds-clip workers
sds-clip workers --json | jq '.[] | select(.alive)'
""",
)
@remote(_print_workers)
def workers(client: Client) -> Any:
    """See who runs jobs.

    Lists the workers that a service has had in the last day: which queue each takes jobs of, whether it is alive, and
    the job that it has.
    """
    return client.workers()

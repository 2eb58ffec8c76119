"""`sds-clip jobs` and `sds-clip workers`: a service's jobs and its workers."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from sds_clip.commands.submit import submit
from sds_clip.options import Group, group, option
from sds_clip.remote import (
    connect,
    list_options,
    moment,
    print_fields,
    print_json,
    print_lines,
    remote,
    server_options,
    url_option,
)
from sds_clip.table import say, table, tell

if TYPE_CHECKING:
    from sds_clip.client import Client
    from sds_clip.client.schemas import JobInfo, WorkerInfo

# Keys are method names of `sds_clip.Job`.
_ACTIONS = {
    "cancel": "Cancel a job. A running job stops within a minute and makes no version.",
    "pause": "Pause a job. A running job writes a checkpoint first and then frees its worker.",
    "resume": "Continue a paused job. It is queued again and continues from its checkpoint.",
    "retry": "Run a failed or cancelled job again. It continues from its newest checkpoint, or starts again if it has "
    "none.",
    "delete": "Delete the files of a job that has ended. This includes its checkpoints. Its record and version stay.",
}
# What to do after an action.
_NEXT = {
    "pause": "Continue it later: sds-clip jobs resume",
    "resume": "Follow it: sds-clip jobs watch",
    "retry": "Follow it: sds-clip jobs watch",
}

job_argument = click.argument("job_id", metavar="JOB", help="The job's id or name.")


def _print_list(found: list[JobInfo]) -> None:
    rows = []
    for job in found:
        about = job["id"], job.get("name", ""), job["kind"], job["status"]
        rows.append([*about, _progress(job), moment(job["created_at"]), _task(job)])
    print(table(["job", "name", "kind", "status", "progress", "created", "task"], rows))


def _print(info: JobInfo) -> None:
    error, reason = info["error"], info.get("pause_reason")
    metrics = info.get("metrics")
    print_fields(
        {
            "job": info["id"],
            "name": info.get("name") or None,
            "kind": info["kind"],
            "task": _task(info),
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
        tell(f"{moment(change['at'])}  {change['to_status']}  {change['message']}".rstrip())


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


_WAITS = {
    "turn": "until a worker is free and no job of another key comes first",
    "attempt": "until the time of its next attempt",
    "checkpoint": "until it has written a checkpoint",
}


def _status(info: JobInfo) -> str:
    if (silent_since := info.get("worker_silent_since")) is not None:
        return f"{info['status']} (its worker has been silent since {moment(silent_since)})"
    if info["no_worker"]:
        queue = "finetune" if info["kind"] == "check" else info["kind"]  # all workers check
        return f"{info['status']} (no worker runs such jobs; start one: sds-clip worker --queue {queue})"
    waits = _WAITS.get(str(info.get("waits_for")))
    return f"{info['status']} ({waits})" if waits else info["status"]


def _task(info: JobInfo) -> str:
    if info["kind"] == "finetune":
        return f"{info['objective']} on {info['base']}"
    if info["kind"] == "check":
        return f"check of {info['dataset']}"
    return f"{info['benchmark']} of {info['model'] or info['teacher']}"


def _progress(info: JobInfo) -> str:
    progress = info["progress"]
    if progress["steps"] is None:
        return f"{info['stage'] or ''} {progress['step'] or ''}".strip()
    return f"{info['stage'] or ''} {progress['step']}/{progress['steps']}".strip()


def _numbers(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)


def _print_workers(found: list[WorkerInfo]) -> None:
    header = ["worker", "queue", "alive", "device", "version", "started", "seen", "clock", "job", "out"]
    rows = []
    for each in found:
        times = moment(each["started_at"]), moment(each["seen_at"])
        alive = "yes" if each["alive"] else "no"
        skew_s = each.get("clock_skew_s")
        clock = None if skew_s is None else f"{skew_s:+.0f} s"
        about = each["id"], each["queue"], alive, each["device"], each["version"]
        rows.append([*about, *times, clock, each["job"], each.get("out_because")])
    print(table(header, rows))


@group(
    examples="""\
sds-clip jobs submit --config run.yaml --name first-try
sds-clip jobs list --status running
sds-clip jobs watch JOB
sds-clip jobs pause JOB
sds-clip jobs log JOB | jq -r '[.step, .loss] | @tsv'
sds-clip jobs retry JOB
sds-clip jobs show JOB --json | jq .error
""",
)
def jobs() -> None:
    """Submit, show and control the fine-tuning and evaluation jobs of a service."""


@jobs.command("list")
@option("--kind", type=click.Choice(["finetune", "evaluate", "check"]), help="List only jobs of this kind.")
@option("--status", metavar="STATUS", help="List only jobs with this status: queued, running, failed, ...")
@list_options
@remote(_print_list)
def list_jobs(client: Client, **filters: Any) -> Any:
    """List jobs, newest first."""
    return [job.info for job in client.jobs(**filters)]


@jobs.command()
@job_argument
@remote(_print)
def show(client: Client, job_id: str) -> Any:
    """Show a job: its status, progress, result and error."""
    return client.job(job_id).info


@jobs.command()
@job_argument
@url_option
def log(job_id: str, url: str | None) -> int:
    """Print the log of a fine-tuning job as JSON lines.

    If the job is still running, the output is the log so far.
    """
    with connect(url) as client:
        print_lines(client.job(job_id).log())
    return 0


@jobs.command()
@job_argument
@server_options
def watch(job_id: str, url: str | None, as_json: bool) -> int:
    """Follow a job until it ends.

    The exit code is 1 if the job fails or is cancelled. Ctrl-C stops watching; the job continues.
    """
    from sds_clip.client.errors import JobFailed

    with connect(url) as client:
        job = client.job(job_id)
        with contextlib.suppress(JobFailed):
            job.wait(progress=sys.stderr.isatty())
    print_json(job.info) if as_json else _print(job.info)
    return 0 if job.status == "succeeded" else 1


def _add_action(name: str, text: str) -> None:
    def show(info: JobInfo) -> None:
        if name == "delete":
            tell(f"Deleted the files of job {info['id']}. Its record stays: sds-clip jobs show {info['id']}")
        else:
            tell(f"Job {info['id']} is now {_status(info)}.")
        if name in _NEXT:
            say(f"{_NEXT[name]} {info['id']}")

    @jobs.command(name, help=text)
    @job_argument
    @remote(show)
    def act(client: Client, job_id: str) -> Any:
        job = client.job(job_id)
        getattr(job, name)()
        return job.info


jobs.add_command(submit)


for _name, _text in _ACTIONS.items():
    _add_action(_name, _text)


class _Workers(Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a command, or with options before it, it lists them too, as it did before it had commands."""
        has_command = args and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if not has_command and not ctx.resilient_parsing:
            args = ["list", *(word for word in args if word != "list")]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Workers,
    examples="""\
sds-clip workers list
sds-clip workers list --json | jq '.[] | select(.alive)'
""",
)
def workers() -> None:
    """List the workers of a service."""


@workers.command("list")
@remote(_print_workers)
def list_workers(client: Client) -> Any:
    """List the workers of a service.

    The list has every worker of the last day: the queue that it takes jobs from, whether it is alive, how far its clock
    is ahead of the database's, its current job, and why it takes no jobs if it does not.
    """
    return client.workers()

"""A job's process whose jobs are light, and do what a test asks of them: `config` says what.

All around the job is the real thing: pipes, lease, reports, exit codes.
"""

import os
import signal
import time
from pathlib import Path

from sds_clip.app.store.states import JobKind
from sds_clip.app.store.verdicts import dataset_of
from sds_clip.worker.context import JobContext
from sds_clip.worker.errors import JobFailed
from sds_clip.worker.job_process import Runner, serve

STEP_S = 0.01


def count(context: JobContext) -> None:
    """Steps that are kept on the disk one by one, and a line for each time that the job is begun.

    `before` steps are taken again each time before these. The file `new-FENCE` has the time of the first step that no
    attempt has taken.
    """
    config = context.job.config or {}
    _note(context, "begun")
    done = context.folder.path.parent / "count"
    context.stage("counting")
    for step in range(config.get("before", 0)):
        time.sleep(STEP_S)
        context.count("before", step + 1)
        _note_new(context)
        context.check()
    while (step := _read(done)) < config["steps"]:
        time.sleep(config.get("step_s", STEP_S))
        done.write_text(str(step + 1))
        context.advance(step + 1, config["steps"])
        _note_new(context)
        if context.should_stop():
            context.stop()
    context.succeed(result={"counted": _read(done)})
    _note(context, "ended")


def die(context: JobContext) -> None:
    """As by a fault in native code, or the kernel for want of memory."""
    _note(context, "begun")
    os.kill(os.getpid(), signal.SIGKILL)


def limp(context: JobContext) -> None:
    """Takes a step more than any attempt before, and dies before its report is sent."""
    done = context.folder.path.parent / "count"
    step = _read(done) + 1
    done.write_text(str(step))
    if step == (context.job.config or {})["steps"]:
        context.succeed(result={"counted": step})
        return
    context.advance(step)
    os.kill(os.getpid(), signal.SIGKILL)


def take_down_its_machine(context: JobContext) -> None:
    """Its supervisor dies with it."""
    _note(context, "begun")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


def hang(context: JobContext) -> None:
    """No step is taken any more."""
    _note(context, "begun")
    time.sleep(3600)


def be_deaf(context: JobContext) -> None:
    """Steps are taken, and no request to stop is heard."""
    _note(context, "begun")
    while True:
        time.sleep(STEP_S)
        context.advance(1)


def want_memory(context: JobContext) -> None:
    raise MemoryError


def be_wrong(context: JobContext) -> None:
    raise JobFailed("nothing_learned", "It cannot be.", param="lr")


def stumble(context: JobContext) -> None:
    """Finds its disk broken once, or full, as `error` says."""
    _note(context, "begun")
    if context.job.fence == 1:
        raise OSError((context.job.config or {})["error"], "The disk cannot be used")
    context.succeed(result={})


ACTS: dict[str, Runner] = {
    act.__name__: act
    for act in (
        count,
        die,
        limp,
        take_down_its_machine,
        hang,
        be_deaf,
        want_memory,
        be_wrong,
        stumble,
    )
}


def check(context: JobContext) -> None:
    """Accept the data, once the file is there that its row may name."""
    dataset = context.store.datasets.get(dataset_of(context.job))
    context.stage("checking")
    while not (context.config.data_dir / dataset.source.get("until", "")).exists():
        time.sleep(STEP_S)
        context.check()
    context.end(lambda: context.store.datasets.accept(context.lease, content_hash="0" * 64, counts={}))


def runner_of(kind: JobKind) -> Runner:
    if kind is JobKind.CHECK:
        return check

    def run(context: JobContext) -> None:
        ACTS[(context.job.config or {})["act"]](context)

    return run


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _note(context: JobContext, what: str) -> None:
    with (context.config.data_dir / "notes").open("a") as file:
        file.write(f"{what} {context.job.id} {context.job.fence} {os.getpid()}\n")


def _note_new(context: JobContext) -> None:
    file = context.folder.path.parent / f"new-{context.job.fence}"
    if context.done > context.job.furthest_step and not file.exists():
        file.write_text(str(context.store.now()))


if __name__ == "__main__":
    import argparse

    from sds_clip.worker.protocol import Ticks

    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int)
    parser.add_argument("--kind")
    serve(Ticks(parser.parse_args().ticks), runner_of)

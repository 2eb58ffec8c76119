"""Runs a function in a process of its own, so that nothing else shares its memory, threads or settings.

`python -m bench.child` reads the pickled function and its arguments from stdin, and writes the pickled result
to stdout.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

R = TypeVar("R")
Arguments = TypeVarTuple("Arguments")


def call(
    work: Callable[[*Arguments], R], *arguments: *Arguments, environment: dict[str, str] | None = None
) -> R:
    """The function's result. Raises RuntimeError with the end of the child's stderr if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.child"],
        input=pickle.dumps((work, arguments)),
        capture_output=True,
        env=os.environ | (environment or {}),
    )
    if done.returncode != 0:
        raise RuntimeError(f"{work.__qualname__} failed:\n{done.stderr.decode(errors='replace')[-3000:]}")
    result: R = pickle.loads(done.stdout)
    return result


def main() -> None:
    results, sys.stdout = sys.stdout.buffer, sys.stderr  # what the function prints is no part of its result
    work, arguments = pickle.load(sys.stdin.buffer)
    results.write(pickle.dumps(work(*arguments)))
    results.flush()


if __name__ == "__main__":
    main()

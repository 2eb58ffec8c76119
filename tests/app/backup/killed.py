"""Runs `sds-clip` and kills itself at a call of a function: MODULE FUNCTION before|after COUNT ARGUMENTS..."""

import importlib
import os
import signal
import sys
from typing import Any


def main() -> int:
    module, function, when, count, *arguments = sys.argv[1:]
    owner: Any = importlib.import_module(module)
    *path, name = function.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls = 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if when == "after" and calls == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)
    from sds_clip.cli import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""What the demo's commands have in common: counts as options, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from sds_clip.models.errors import ModelError


def count(text: str) -> int:
    """Read an option that is a whole number of at least 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1.")
    return int(text)


def run(main: Callable[[], None]) -> None:
    """Call a command's main function. A model, a teacher or a file that cannot be used ends it with one line."""
    try:
        main()
    except (ModelError, OSError) as error:
        sys.exit(str(error))

"""What the demo's commands have in common: counts as options, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from sds_clip.demo.world import Split
from sds_clip.models.errors import ModelError

MEASURED = (Split.HELD_OUT, Split.VALIDATION)
"""The parts that something is measured on."""


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compile",
        action="store_true",
        help="Compile the networks first. This needs a C++ compiler, and saves time.",
    )


def add_split(parser: argparse.ArgumentParser, default: Split) -> None:
    parser.add_argument(
        "--split",
        type=Split,
        choices=MEASURED,
        default=default,
        help="Part of the world (default: %(default)s).",
    )


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

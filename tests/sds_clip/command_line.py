"""The command line as a caller of its entry point sees it, for tests of several commands."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.training.config import FinetuneConfig
from sds_clip.cli import build_parser, main
from sds_clip.commands.finetune import read_config


def exit_code(arguments: Sequence[str]) -> int:
    """How `sds-clip ARGUMENTS` ends, whether by returning or by SystemExit."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(str(ended.code))


def parsed(arguments: Sequence[str]) -> Mapping[str, Any]:
    """The options of a command by their names, without running it."""
    return vars(build_parser().parse_args(arguments))


def config_of(arguments: Sequence[str]) -> FinetuneConfig:
    """What `sds-clip finetune` would train with."""
    return read_config(build_parser().parse_args(arguments))

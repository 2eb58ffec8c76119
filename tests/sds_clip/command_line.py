"""The command line as a caller of its entry point sees it, for tests of several commands."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import pytest
import torch

from sds_clip.cli import cli, main
from sds_clip.commands.finetune import read_config
from sds_clip.models.training.config import FinetuneConfig


def exit_code(arguments: Sequence[str]) -> int:
    """How `sds-clip ARGUMENTS` ends."""
    return main(arguments)


def start(*arguments: str) -> "subprocess.Popen[str]":
    """The real command in a process of its own, with as many threads as this one: the last bit hangs on that."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "sds_clip", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def parsed(arguments: Sequence[str]) -> Mapping[str, Any]:
    """The options of a command by their names, without running it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "invoke", lambda self, context: context.params)
        with cli.make_context("sds-clip", list(arguments)) as context:
            return dict(cli.invoke(context))


def config_of(arguments: Sequence[str]) -> FinetuneConfig:
    """What `sds-clip finetune` would train with."""
    options = dict(parsed(arguments))
    return read_config(options.pop("config"), {name: options[name] for name in FinetuneConfig.model_fields})

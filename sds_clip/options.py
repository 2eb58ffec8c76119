"""Options and settings that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from sds_clip.errors import CliError

if TYPE_CHECKING:
    from app.settings import Settings
    from models.clip import Clip

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

REFERENCES = """\
A model is named by a reference: demo (ships with this package), ViT-B-32/openai (an open_clip architecture
and tag), hf-hub:ORG/REPO, local-dir:PATH (an open_clip folder, or a fine-tuned delta, part of the way with
local-dir:PATH#alpha=0.5), or PATH.safetensors@ARCHITECTURE.
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and may declare options only once it is used, where that takes imports."""

    declare_later: Callable[[Parser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, with the late options."""
        declare, self.declare_later = self.declare_later, None
        if declare is not None:
            declare(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print it and end with exit code 2."""
        self.exit(2, f"sds-clip: {message} (see `{self.prog} --help`)\n")


def add_command(
    commands: Commands, name: str, summary: str, *, description: str, epilog: str, usage: str | None = None
) -> Parser:
    """A command's parser; its description and examples keep their line breaks."""
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        usage=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--model, --device and --precision, which default to what `sds-clip serve` would use."""
    parser.add_argument(
        "--model", metavar="REF", help="model to use (default: demo, or the first of SDS_CLIP_MODELS)"
    )
    add_compute_options(parser)


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """--device and --precision."""
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto, or SDS_CLIP_DEVICE)")
    parser.add_argument(
        "--precision",
        help="float32, bfloat16, float16 or auto, which takes bfloat16 where the hardware has it "
        "(default: auto, or SDS_CLIP_PRECISION)",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, overridden by every option that was given."""
    from pydantic import ValidationError

    from app.settings import Settings

    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise CliError(f"setting {name} (SDS_CLIP_{name.upper()}): {problem['msg']}") from error


def load_model(args: argparse.Namespace, settings: Settings) -> Clip:
    """The model that --model, --device and --precision name."""
    from models.checkpoints import load_clip

    return load_clip(
        args.model or settings.models[0],
        device=args.device or settings.device,
        precision=args.precision or settings.precision,
    )


def describe_model(clip: Clip) -> dict[str, Any]:
    """What an answer says about the model that gave it."""
    return {
        "name": clip.reference,
        "architecture": clip.architecture,
        "version": clip.version,
        "precision": clip.precision,
        "device": str(clip.device),
    }


def checked_texts(texts: list[str], what: str) -> list[str]:
    """The texts, when there are some and every one can be encoded."""
    if not texts:
        raise CliError(f"give at least one {what}")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise CliError(f"{what} {number} is empty")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CliError(f"{what} {number} is not valid UTF-8") from error
    return texts


def show_progress(what: str) -> Callable[[int, int], None]:
    """A counter on a terminal, nothing in a log."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done}/{total} {what}", end=end, file=sys.stderr, flush=True)

    return show

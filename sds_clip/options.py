"""Options and settings that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from sds_clip.errors import CliError

if TYPE_CHECKING:
    from app.settings import Settings
    from models.clip import Clip

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

AnySettings = TypeVar("AnySettings", bound="Settings")

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


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """What the HTTP service can be told; `service_settings` has its names."""
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, or SDS_CLIP_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8000, or SDS_CLIP_PORT)")
    parser.add_argument(
        "--model",
        action="append",
        metavar="REF",
        help="model to serve; repeat for more, the first is the default (default: demo, or SDS_CLIP_MODELS)",
    )
    add_compute_options(parser)
    parser.add_argument(
        "--keys-file",
        type=Path,
        metavar="FILE",
        help="API keys, made by `sds-clip keys create` (default: none, or SDS_CLIP_KEYS_FILE)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="compute threads, 0 for one a core (default: 0, or SDS_CLIP_THREADS)",
    )
    add_data_dir_option(parser)


def service_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those options by the settings' names; None where one was not given."""
    names = ("host", "port", "device", "precision", "keys_file", "threads", "data_dir")
    return {"models": args.model} | {name: getattr(args, name) for name in names}


def add_data_dir_option(parser: argparse.ArgumentParser) -> None:
    """--data-dir."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder for versions, data sets, jobs and caches (default: data, or SDS_CLIP_DATA_DIR)",
    )


def add_supervised_option(parser: argparse.ArgumentParser) -> None:
    """--supervised, for `sds-clip up` alone."""
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, overridden by every option that was given."""
    from app.settings import Settings

    return settings_of(Settings, overrides)


def settings_of(kind: type[AnySettings], overrides: Mapping[str, Any]) -> AnySettings:
    """Settings of a kind, in the same way."""
    from pydantic import ValidationError

    try:
        return kind(**{name: value for name, value in overrides.items() if value is not None})
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

"""`sds-clip convert`: a pickled checkpoint becomes a folder of safetensors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sds_clip.errors import CliError
from sds_clip.options import Commands, add_command

_DESCRIPTION = """\
Read a pickled checkpoint (.pt, .pth, .bin), as tensors only, and write a folder that is served as
local-dir:DIR: its weights as safetensors beside a configuration that holds the architecture, the activation
and the preprocessing. No other command reads a pickle.
"""

_EPILOG = """\
examples:
  sds-clip convert epoch_32.pt --architecture ViT-B-32+gelu --out my-clip
  sds-clip convert fine-tuned.pt --architecture ViT-B-32+quickgelu --out my-clip
  sds-clip serve --model local-dir:my-clip
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "convert",
        "turn a .pt checkpoint into safetensors",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the pickled checkpoint")
    parser.add_argument(
        "--architecture",
        required=True,
        metavar="NAME",
        help="open_clip's name, with +gelu or +quickgelu where it publishes both, such as ViT-B-32+quickgelu",
    )
    parser.add_argument(
        "--out", "--output", required=True, type=Path, metavar="DIR", help="folder to write; must not exist"
    )
    parser.add_argument(
        "--preprocess",
        type=Path,
        metavar="FILE",
        help="JSON with mean, std, interpolation and resize_mode (default: that of open_clip's own weights)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder and print the reference to serve it with."""
    if not args.file.is_file():
        raise CliError(f"{args.file}: no such file")
    preprocess = None if args.preprocess is None else _read_preprocess(args.preprocess)
    from models.convert import convert_pickle

    convert_pickle(args.file, args.architecture, args.out, preprocess=preprocess)
    print(f"local-dir:{args.out}")
    return 0


def _read_preprocess(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CliError(f"{path}: is not JSON") from error
    if not isinstance(content, dict):
        raise CliError(f"{path}: must be a JSON object")
    return content

"""`sds-clip export`: a delta and its base become one folder that open_clip reads by itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from sds_clip.errors import CliError
from sds_clip.options import REFERENCES, Commands, add_command

_DESCRIPTION = """\
Write a fine-tuned delta whole: its base's weights with the delta in them, as open_clip's folder layout
(open_clip_config.json, open_clip_model.safetensors, the tokenizer), which plain open_clip loads as
local-dir:DIR. The folder is read back and must have the delta's version before it appears.

With --alpha the weights lie between the base (0) and the delta (1), as WiSE-FT blends them.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip export runs/mine/delta --out mine-whole
  sds-clip export runs/mine/delta --alpha 0.7 --out mine-whole-07
  sds-clip serve --model local-dir:runs/mine/delta#alpha=0.7
"""
)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "export",
        "write a fine-tuned delta as a whole open_clip checkpoint",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("delta", metavar="DELTA", help="a delta's folder, or any other reference")
    parser.add_argument(
        "--out", "--output", required=True, type=Path, metavar="DIR", help="folder to write; must not exist"
    )
    parser.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="how far to go from the base (0) to the delta (1) (default: 1, or what DELTA#alpha=A says)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder and print the reference to use it by."""
    from models.delta_file import is_delta
    from models.export import export_full

    folder = Path(args.delta.partition("#alpha=")[0])
    if is_delta(folder / "delta"):
        raise CliError(f"{folder} is a run's folder; its delta is {folder / 'delta'}")
    reference = f"local-dir:{args.delta}" if is_delta(folder) else args.delta
    export_full(reference, args.out, args.alpha)
    print(f"local-dir:{args.out}")
    return 0

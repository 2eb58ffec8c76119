"""`sds-clip convert` and `sds-clip export`: convert checkpoints between layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sds_clip.options import PATH, Command, file_option, folder_option, option

out_option = folder_option(
    "--out", "--output", "out", required=True, help="Write this folder, which must not exist."
)


@click.command(
    cls=Command,
    extra="serve",
    examples="""\
sds-clip convert epoch_32.pt --architecture ViT-B-32+gelu --out my-clip
sds-clip convert fine-tuned.pt --architecture ViT-B-32+quickgelu --out my-clip
sds-clip serve --model local-dir:my-clip
""",
)
@click.argument("file", type=PATH, metavar="FILE", help="The pickled checkpoint.")
@option(
    "--architecture",
    required=True,
    metavar="NAME",
    help="Take open_clip's architecture of this name, with +gelu or +quickgelu where it publishes both, such as "
    "ViT-B-32+quickgelu.",
)
@out_option
@file_option(
    "--preprocess",
    help="Take the preprocessing from JSON with mean, std, interpolation and resize_mode (default: that of open_clip's "
    "own weights).",
)
def convert(file: Path, architecture: str, out: Path, preprocess: Path | None) -> int:
    """Turn a .pt checkpoint into safetensors.

    Reads a pickled checkpoint (.pt, .pth, .bin), as tensors only, and writes a folder that is served as
    local-dir:DIR: its weights as safetensors beside a configuration that holds the architecture, the activation
    and the preprocessing. No other command reads a pickle.
    """
    if not file.is_file():
        raise click.ClickException(f"{file}: no such file")
    stated = None if preprocess is None else _read_preprocess(preprocess)
    from models.convert import convert_pickle

    convert_pickle(file, architecture, out, preprocess=stated)
    print(f"local-dir:{out}")
    return 0


def _read_preprocess(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{path}: is not JSON") from error
    if not isinstance(content, dict):
        raise click.ClickException(f"{path}: must be a JSON object")
    return content


@click.command(
    cls=Command,
    extra="serve",
    references=True,
    examples="""\
sds-clip export runs/mine/delta --out mine-whole
sds-clip export runs/mine/delta --alpha 0.7 --out mine-whole-07
sds-clip serve --model local-dir:runs/mine/delta#alpha=0.7
""",
)
@click.argument("delta", metavar="DELTA", help="A delta's folder, or any other reference.")
@out_option
@option(
    "--alpha",
    type=float,
    metavar="A",
    help="Go so far from the base (0) to the delta (1) (default: 1, or what DELTA#alpha=A says).",
)
def export(delta: str, out: Path, alpha: float | None) -> int:
    """Write a fine-tuned delta as a whole open_clip checkpoint.

    Writes its base's weights with the delta in them, as open_clip's folder layout (open_clip_config.json,
    open_clip_model.safetensors, the tokenizer), which plain open_clip loads as local-dir:DIR. The folder is read
    back and must have the delta's version before it appears.

    With --alpha the weights lie between the base (0) and the delta (1), as WiSE-FT blends them.
    """
    from models.export import export_full
    from models.references import is_delta

    folder = Path(delta.partition("#alpha=")[0])
    if is_delta(folder / "delta"):
        raise click.ClickException(f"{folder} is a run's folder; its delta is {folder / 'delta'}")
    export_full(f"local-dir:{delta}" if is_delta(folder) else delta, out, alpha)
    print(f"local-dir:{out}")
    return 0

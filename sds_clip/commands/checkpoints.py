"""`sds-clip convert` reads checkpoints of other layouts, and `sds-clip export` writes them for other programs."""

from pathlib import Path
from typing import get_args

import click

from sds_clip.extras import require_extra
from sds_clip.models.choices import ExportFormat
from sds_clip.options import PATH, command, file_option, folder_option, option
from sds_clip.table import say, say_written

out_option = folder_option(
    "--out", "--output", "out", required=True, help="Write this folder. It must not exist yet."
)


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip convert epoch_32.pt --architecture ViT-B-32+gelu --out my-clip
sds-clip convert fine-tuned.pt --base ViT-B-32/openai --out my-clip
sds-clip convert my-adapter --base ViT-B-32/openai --out my-delta
sds-clip serve --model local-dir:my-clip
""",
)
@click.argument(
    "file",
    type=PATH,
    metavar="FILE",
    help="The checkpoint: a file of weights, a folder of transformers' CLIP, or one of an adapter of PEFT.",
)
@option(
    "--architecture",
    metavar="NAME",
    help="The architecture's name in open_clip. Add +gelu or +quickgelu if open_clip has both, as in "
    "ViT-B-32+quickgelu.",
)
@option(
    "--base",
    metavar="REF",
    help="In place of --architecture: the model that the checkpoint was trained from. If the checkpoint is only an "
    "image tower, the rest of the weights comes from this model. An adapter becomes a delta over it.",
)
@out_option
@file_option(
    "--preprocess",
    help="Read the preprocessing from this JSON file with mean, std, interpolation and resize_mode (default: that "
    "beside transformers' weights, else that of the base or of open_clip's own weights).",
)
def convert(
    file: Path, architecture: str | None, base: str | None, out: Path, preprocess: Path | None
) -> int:
    """Convert a checkpoint of another layout to open_clip's folder.

    This command reads only tensors from a pickled checkpoint (.pt, .pth, .bin, .ckpt). It knows the names of open_clip
    and of transformers' CLIPModel. It writes a folder that every command loads as local-dir:DIR. The folder has the
    weights as safetensors, and a configuration with the architecture, the activation and the preprocessing. No other
    command reads pickles, because a pickle can run code.
    """
    if not file.exists():
        raise click.ClickException(f"There is no file {file}.")
    from sds_clip.models.checkpoints.references import ADAPTER_FILE
    from sds_clip.models.errors import CheckpointError
    from sds_clip.models.export.convert import convert_checkpoint
    from sds_clip.models.files import read_object

    stated = None if preprocess is None else read_object(preprocess, CheckpointError, "correct it")
    convert_checkpoint(file, out, architecture=architecture, base=base, preprocess=stated)
    if (file / ADAPTER_FILE).is_file():
        theirs = read_object(file / ADAPTER_FILE, CheckpointError, "correct it").get(
            "base_model_name_or_path"
        )
        say(f"The adapter says that it was trained from {theirs}. It lies over {base} now.")
    print(f"local-dir:{out}")
    say_written(out)
    return 0


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip export runs/mine/delta --out mine-whole
sds-clip export runs/mine/delta --alpha 0.7 --out mine-whole-07
sds-clip export runs/mine/delta --format transformers --out mine-transformers
sds-clip export ViT-B-32/openai --format onnx --out vit-b-32-onnx
""",
)
@click.argument("delta", metavar="DELTA", help="The folder of a delta, or any other reference.")
@out_option
@option(
    "--format",
    "format",
    type=click.Choice(get_args(ExportFormat)),
    default="open_clip",
    help="Write the layout of this library: open_clip, transformers (a CLIPModel or a SiglipModel with its processor), "
    "onnx, which needs the extra of this name, or peft: only the adapter, of a delta that was trained with "
    "--trainable lora (default: open_clip).",
)
@option(
    "--alpha",
    type=float,
    metavar="A",
    help="Blend the weights of the base (0) and of the delta (1) (default: 1, or the A of DELTA#alpha=A).",
)
@file_option(
    "--results",
    "results",
    multiple=True,
    help="Put the figures of this results.json into the model card. Repeat the option for several (default: those of "
    "this version in the folders beside DELTA).",
)
def export(
    delta: str, out: Path, format: ExportFormat, alpha: float | None, results: tuple[Path, ...]
) -> int:
    """Write a fine-tuned delta as a whole checkpoint, for open_clip, transformers or ONNX, or as an adapter for PEFT.

    The output is the base's weights with the delta applied, and a model card, README.md. In open_clip's layout these
    are open_clip_config.json, open_clip_model.safetensors and the tokenizer; open_clip loads the folder as
    local-dir:DIR. Before the command moves the files to --out, it reads them back. In open_clip's layout their version
    must equal the delta's; of LoRA, whose factors are merged, the weights must be equal. For transformers and ONNX,
    transformers or onnxruntime must compute the same embeddings of images and texts: a cosine of at least 0.99999 in
    float32. An architecture that transformers does not have is refused. An adapter is written without the base.

    --alpha blends the weights of the base (0) and of the delta (1), as WiSE-FT does.
    """
    if format == "onnx":
        require_extra("onnx", "--format onnx")
    from sds_clip.models.checkpoints.references import is_delta
    from sds_clip.models.export.write import export_full

    folder = Path(delta.partition("#alpha=")[0])
    if is_delta(folder / "delta"):
        raise click.ClickException(f"{folder} is the folder of a run; export its delta, {folder / 'delta'}.")
    if is_delta(folder):
        delta = f"local-dir:{delta}"
    elif not _is_known(delta):
        raise click.ClickException(_no_delta(folder))
    export_full(delta, out, alpha, format=format, results=results)
    served = format == "open_clip"
    print(f"local-dir:{out}" if served else out)
    say_written(out, served=served)
    return 0


def _is_known(reference: str) -> bool:
    """Whether a reference that could be read as a path or as an architecture is one that open_clip knows."""
    from sds_clip.models.checkpoints.published import is_architecture
    from sds_clip.models.checkpoints.references import Published, parse

    parsed = parse(reference)
    return not isinstance(parsed, Published) or is_architecture(parsed.architecture)


def _no_delta(folder: Path) -> str:
    from sds_clip.models.checkpoints.references import DESCRIPTION_FILE

    if not folder.is_dir():
        return f"There is no folder {folder}, and open_clip has no model of this name."
    return (
        f"{folder} is not a delta: it has no {DESCRIPTION_FILE}. To name a checkpoint in another layout, write a "
        f"reference, such as local-dir:{folder}."
    )

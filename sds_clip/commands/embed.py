"""`sds-clip embed` embeds a folder of images, or a table or shards of them, into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.extras import require_extra
from sds_clip.options import (
    command,
    file_option,
    image_limits,
    load_model,
    model_options,
    number_option,
    option,
    read_settings,
)
from sds_clip.progress import Progress
from sds_clip.remote import connect
from sds_clip.signals import stopped_in_time
from sds_clip.table import say

if TYPE_CHECKING:
    from sds_clip.app.settings import Settings
    from sds_clip.models.vectors.clip_encoder import ClipEncoder
    from sds_clip.models.vectors.embed import Summary
    from sds_clip.service_encoder import ServiceEncoder

service_option = option(
    "--url",
    section="Service",
    metavar="URL",
    help="Let the service at this URL compute; --model is then a name that it serves. If it asks for an API key, set "
    "SDS_CLIP_API_KEY (default: compute in this process).",
)


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip embed photos/ --out vectors.parquet
sds-clip embed photos/ scans/ extra.jpg --out vectors.npy --model ViT-B-32/openai
sds-clip embed "train/{00000..00099}.tar" --out vectors.arrow
sds-clip embed train.parquet --image-key picture --out vectors.parquet
sds-clip embed photos/ --out vectors.parquet --url http://gpu:8000
""",
)
@click.argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="INPUT...",
    help="Folders, image files, Parquet tables with a column of images or of paths, or uncompressed tar shards.",
)
@file_option(
    "--out",
    required=True,
    help="Write the embeddings to this file: .parquet, .arrow, or .npy with a .jsonl beside it.",
)
@model_options
@service_option
@number_option("--batch-size", default=32, help="Encode this many images at once.")
@number_option("--threads", help="Read and decode with this many threads (default: one per core).")
@option(
    "--dtype",
    type=click.Choice(("float32", "float16")),
    default="float32",
    help="Write numbers in this format.",
)
@option("--image-key", metavar="COLUMN", help="The tables' column of images (default: image or filepath).")
@option(
    "--keep-missing",
    is_flag=True,
    help="Keep the rows of --out whose images are no longer among the inputs. Without this option they are dropped.",
)
@stopped_in_time()
def embed(
    inputs: Sequence[str],
    out: Path,
    model: str | None,
    device: str | None,
    precision: str | None,
    url: str | None,
    batch_size: int,
    threads: int | None,
    **given: Any,
) -> int:
    """Embed images into one file, for `sds-clip search` and other tools.

    A folder is read with its subfolders. The file has a row for each image, with its path, the SHA-256 of its content
    and its embedding of length 1. It names the version of the model.

    A run that was stopped or killed continues where it was if the command is given again. If --out exists, only
    images with new content are embedded. Images that cannot be read are listed in a file beside --out that ends with
    .errors.jsonl, and so are rows that were dropped because their images are gone. The exit code is 2 if no image can
    be read.
    """
    from sds_clip.models.machine import usable_cores
    from sds_clip.models.vectors.embed import Options, errors_file
    from sds_clip.models.vectors.embed import embed as embed_images
    from sds_clip.models.vectors.files import check_suffix

    check_suffix(out)
    require_tables([*inputs, str(out)])
    if not out.absolute().parent.is_dir():
        raise click.ClickException(
            f"There is no folder {out.absolute().parent}; create it, or choose another --out."
        )
    options = Options(batch_size=batch_size, threads=threads or usable_cores(), **given)
    with (
        open_encoder(url=url, model=model, device=device, precision=precision) as encoder,
        closing(Progress()) as progress,
    ):
        summary = embed_images(inputs, out, encoder, options, partial(progress.show, ""))
    _tell(summary, out, errors_file(out), keep_missing=options.keep_missing)
    return 0


def require_tables(names: Sequence[str]) -> None:
    """Raise click.ClickException if a name ends as only pyarrow's formats do, and pyarrow is missing."""
    from sds_clip.models.vectors.files import ARROW_SUFFIXES

    for name in names:
        if Path(name).suffix in ARROW_SUFFIXES:
            require_extra("tables", f"{Path(name).suffix}")


@contextmanager
def open_encoder(
    *,
    url: str | None,
    model: str | None,
    device: str | None,
    precision: str | None,
    named: Callable[[Settings], str | None] = lambda settings: None,
) -> Iterator[ClipEncoder | ServiceEncoder]:
    """The encoder that the options name. Without --url and --model, it has the model that `named` returns."""
    if url is None:
        from sds_clip.models.clip.precision import split_precision
        from sds_clip.models.vectors.clip_encoder import ClipEncoder

        settings = read_settings()
        clip = load_model(settings, model or named(settings), device, precision)
        yield ClipEncoder(
            clip, image_limits(settings), keep_decoding=bool(split_precision(precision or "")[1])
        )
        return
    from sds_clip.service_encoder import ServiceEncoder

    if device or precision:
        raise click.UsageError("With --url, the service chooses --device and --precision; leave them out.")
    with connect(url) as client:
        yield ServiceEncoder(client, model)


def _tell(summary: Summary, out: Path, errors: Path, *, keep_missing: bool) -> None:
    known = summary.rows - summary.embedded
    say(f"Wrote {out}: {summary.rows} rows, {summary.embedded} embedded now, {known} as they were.")
    if summary.missing:
        what = "kept" if keep_missing else "dropped"
        say(
            f"{summary.missing} images of the earlier file are gone, and their rows were {what}; {errors} lists them."
        )
    if summary.left_out:
        say(f"Left out, as they are no images by their names: {summary.counts_left_out()}.")
    if summary.unreadable:
        say(f"{summary.unreadable} images cannot be read; {errors} lists them.")

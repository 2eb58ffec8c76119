"""`sds-clip search` finds the images of a file of embeddings that fit a text or an image best."""

from __future__ import annotations

import json
import shlex
import webbrowser
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sds_clip.commands.embed import open_encoder, require_tables, service_option
from sds_clip.options import (
    PATH,
    command,
    file_option,
    folder_option,
    json_option,
    model_options,
    number_option,
    option,
)
from sds_clip.table import say, table

if TYPE_CHECKING:
    from sds_clip.app.settings import Settings
    from sds_clip.models.vectors.mapped import Vectors


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip search vectors.parquet "a red car left of a tree"
sds-clip search vectors.parquet "a red car left of a tree" --html found.html --open
sds-clip search vectors.npy --image cat.jpg --top-k 5 --json
sds-clip search vectors.parquet "a dog" --url http://gpu:8000
""",
)
@click.argument("file", type=PATH, metavar="VECTORS", help="What `sds-clip embed` wrote.")
@click.argument("text", required=False, metavar="[TEXT]", help="Find the images that fit this text best.")
@file_option("--image", help="Find the images that are most like this one, instead of a text.")
@number_option("--top-k", default=20, metavar="K", help="Show the best K images.")
@file_option("--html", help="Write a contact sheet of them to this file: one page with the pictures in it.")
@option("--open", "show", is_flag=True, help="Open the contact sheet in the browser.")
@folder_option(
    "--images",
    help="The folder that the paths in VECTORS are relative to. The contact sheet has no picture from outside of it "
    "(default: where it was at embedding, without pictures from outside the folder of VECTORS).",
)
@model_options
@service_option
@json_option
def search(
    file: Path,
    text: str | None,
    image: Path | None,
    top_k: int,
    html: Path | None,
    show: bool,
    images: Path | None,
    as_json: bool,
    **chosen: str | None,
) -> int:
    """Find the images of a file of embeddings that fit a text or an image best.

    Every row is compared, and the best are printed with their cosines. The model is the one that made VECTORS. If the
    model or the service has another version, nothing is searched. If loading the model may download something, it
    must be named with --model or be in SDS_CLIP_MODELS.

    The rows of a .parquet are copied into an array beside it before the first search. An .arrow or a .npy is searched
    as it is.
    """
    from sds_clip.models.vectors.files import open_vectors
    from sds_clip.models.vectors.search import search as find

    if (text is None) == (image is None):
        raise click.UsageError("Give either a text or --image.")
    if text is not None and not text.strip():
        raise click.UsageError("The text is empty; write what to look for.")
    if show and html is None:
        raise click.UsageError("--open needs --html FILE.")
    require_tables([str(file)])
    vectors = open_vectors(file)
    searched = None if image is None else image.read_bytes()
    with open_encoder(named=partial(_named, vectors), **chosen) as encoder:
        _check_version(vectors, encoder.version)
        encoder.decode_as(vectors.about.decoding)
        query = encoder.encode_text(text or "") if searched is None else encoder.encode_query(searched)
    hits = find(vectors, query, top_k)
    if as_json:
        print(
            json.dumps({"version": vectors.about.version, "results": [asdict(hit) for hit in hits]}, indent=2)
        )
    else:
        print(table(["cosine", "image"], [[hit.score, hit.path] for hit in hits]))
    if html is not None:
        from sds_clip.models.atomic import write_atomic
        from sds_clip.models.vectors.sheet import Elsewhere, Pictures, render_sheet

        pictures = Pictures.of(vectors, images)
        tiles = [(hit, pictures.read(hit.path)) for hit in hits]
        write_atomic(html, render_sheet(vectors, tiles, text or str(image), searched=searched))
        say(f"Wrote {html}.")
        if elsewhere := [small for _, small in tiles if isinstance(small, Elsewhere)]:
            verb = "is" if len(elsewhere) == 1 else "are"
            say(
                f"{len(elsewhere)} of these images {verb} not below {elsewhere[0].folder}, so that the page has no "
                f"pictures of them. If you trust {file}, name the folder of the images with --images."
            )
        if show:
            webbrowser.open(html.absolute().as_uri())
    return 0


def _check_version(vectors: Vectors, version: str) -> None:
    if version != vectors.about.version:
        raise click.ClickException(
            f"{vectors.path} was made by the version {vectors.about.version}, but this model is {version}. "
            "Embeddings of two versions cannot be compared. Name the model that made the file, or embed the images "
            "again."
        )


def _named(vectors: Vectors, settings: Settings) -> str:
    """The model that the file names, which may be a stranger's: nothing is downloaded on its word."""
    from sds_clip.models.checkpoints.load import is_local

    reference = vectors.about.reference
    if reference is None:
        raise click.ClickException(
            "A service made these embeddings. Give --url, or name with --model the same weights."
        )
    if reference not in settings.models and not is_local(reference):
        raise click.ClickException(
            f"{vectors.path} was made by the model {reference}, which may have to be downloaded. If you trust it, give "
            f"--model {shlex.quote(reference)}."
        )
    return reference

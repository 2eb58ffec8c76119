"""`sds-clip propose` writes captions for images that have none."""

import csv
import io
from functools import partial
from pathlib import Path

import click

from sds_clip.options import (
    PATH,
    command,
    file_option,
    load_model,
    model_options,
    number_option,
    read_settings,
)
from sds_clip.progress import Progress
from sds_clip.signals import stopped_in_time
from sds_clip.table import say

_BATCH_SIZE = 32


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip propose photos/ --captions captions.txt --out proposed.csv
sds-clip finetune --base demo --teacher demo --objective score --negatives data --negatives-count 7 \\
    --data proposed.csv --images photos/ --steps 400 --out runs/proposed
""",
)
@click.argument("images", type=PATH, metavar="DIR", help="The folder of the images.")
@file_option(
    "--captions", required=True, help="Choose among the captions in this UTF-8 file, one in each line."
)
@number_option("--count", default=8, metavar="K", help="Propose the best K captions for each image.")
@file_option("--out", required=True, help="Write this table, which must not exist yet.")
@model_options
@stopped_in_time()
def propose(images: Path, captions: Path, count: int, out: Path, **chosen: str | None) -> int:
    """Write captions for images that have none.

    For each image in DIR and its subfolders, the model finds the best captions of a list. It need not know which of
    them is right: the objective score lets the teacher choose among them. The table has the best caption of each image
    as its caption, and the others as its hard negatives. `sds-clip finetune --negatives data` reads it.

    If an image cannot be read, an error names it, the other images get captions, and the exit code is 2.
    """
    from sds_clip.models.atomic import write_atomic
    from sds_clip.models.clip.encode import encode_texts
    from sds_clip.models.clip.propose import best_captions
    from sds_clip.models.data.folder import read_folder
    from sds_clip.models.data.pairs import MissingImage, UnreadableImage
    from sds_clip.models.data.table import NEGATIVES_KEY
    from sds_clip.models.errors import DataError
    from sds_clip.models.files import read_text

    if out.exists():
        raise click.ClickException(f"{out} exists already; choose another --out.")
    if not out.absolute().parent.is_dir():
        raise click.ClickException(
            f"There is no folder {out.absolute().parent}; create it, or choose another --out."
        )
    if count < 2:
        raise click.ClickException("One caption is no choice; give --count 2 or more.")
    texts = list(dict.fromkeys(line.strip() for line in read_text(captions, DataError).splitlines()))
    texts = [text for text in texts if text]
    if len(texts) < 2:
        raise click.ClickException(f"{captions} must contain at least two captions, one in each line.")
    pairs = read_folder(images)
    clip = load_model(read_settings(), **chosen)
    bars = Progress(counted="")
    features = encode_texts(clip, texts, progress=partial(bars.show, "captions"))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("filepath", "title", NEGATIVES_KEY))
    unreadable = 0
    for start in range(0, len(pairs), _BATCH_SIZE):
        end = min(start + _BATCH_SIZE, len(pairs))
        read = []
        for index in range(start, end):
            try:
                read.append((pairs.sample(index).name, pairs.image(index)))
            except (MissingImage, UnreadableImage) as error:
                say(f"error: {error}")
                unreadable += 1
        if read:
            names, pictures = zip(*read, strict=True)
            found = best_captions(clip, pictures, texts, features, count)
            writer.writerows((name, best[0], best[1:]) for name, best in zip(names, found, strict=True))
        bars.show("images", end, len(pairs))
    if unreadable == len(pairs):
        raise click.ClickException(f"No image in {images} can be read.")
    write_atomic(out, table.getvalue())
    say(f"Wrote {out}: {len(pairs) - unreadable} images, up to {min(count, len(texts))} captions each.")
    return 2 if unreadable else 0

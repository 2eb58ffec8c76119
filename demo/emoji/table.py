"""Print what the student tells beside the baselines: `python -m sds_clip.demo.emoji.table`.

The baselines need the pictures of all vendors, which `python -m sds_clip.demo.emoji.build` has made. With --teacher,
what teachers tell of scenes is printed instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from sds_clip.demo.emoji.baselines import linear, nearest
from sds_clip.demo.emoji.build import EMOJI, WORK_DIR, all_pictures
from sds_clip.demo.emoji.build_teacher import items
from sds_clip.demo.emoji.draw import Drawer
from sds_clip.demo.emoji.measure import Outcomes, Served, compositions, name_scores, named, names_set
from sds_clip.demo.emoji.packages import HELD_OUT, SEEN
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.options import run
from sds_clip.demo.teacher_validation import load_measured, match_scores, print_table
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.evaluation.metrics import wilson
from sds_clip.models.markdown import markdown_table

WHOSE = {"the held-out vendor": [HELD_OUT.name], "the seen ones": [each.name for each in SEEN]}


def table(student: Served, pictures: Pictures, *, only_watched: bool | None = None) -> str:
    """The shares of pictures by the held-out vendor that each names, and the student's of scenes, in Markdown."""
    images, shown, names = names_set(pictures, only_watched)
    place = {each.code: number for number, each in enumerate(pictures.concepts)}
    columns = torch.tensor([place[each.code] for each in names])
    codes = {each.code for each in shown}
    rows = torch.tensor([each.code in codes for each in names])
    found = {"the student": named(name_scores(student, images, names), shown, names)}
    for who, scores in (("the nearest picture", nearest(pictures)), ("a linear map", linear(pictures))):
        found[who] = named(scores[rows][:, columns], shown, names)
    scenes = {
        f"scenes of {whose}": compositions(student, Drawer(pictures, vendors), Split.HELD_OUT)
        for whose, vendors in WHOSE.items()
    }
    return f"{_shares(found)}\n\n{_shares(scenes)}"


def teacher_scores(
    references: Sequence[str], pictures: Pictures, per_kind: int = 500
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the scores of each teacher on held-out pairs of things, by whose pictures they are."""
    for reference in references:
        teacher, vae = load_measured(reference)
        for whose, vendors in WHOSE.items():
            shown = items(vae, pictures, vendors, split=Split.HELD_OUT, per_kind=per_kind)
            yield f"{reference}, {whose}", match_scores(teacher, shown, draws_each=4)


def _shares(found: Mapping[str, Mapping[str, Outcomes]]) -> str:
    """A row for each who, a column for each figure, with Wilson's interval."""
    figures = next(iter(found.values()))
    header = ["%", *(f"{figure} (n = {len(right)})" for figure, right in figures.items())]
    rows = [[who, *map(_share, outcomes.values())] for who, outcomes in found.items()]
    return markdown_table(header, rows, text=(0,))


def _share(right: Outcomes) -> str:
    low, high = wilson(int(right.sum()), len(right))
    return f"{100 * right.float().mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", type=Path, default=EMOJI / "student", help="Folder of the student.")
    parser.add_argument(
        "--work-dir", type=Path, default=WORK_DIR, help="Folder of the build, with all pictures."
    )
    parser.add_argument("--watched", action="store_true", help="Look only at the quarter that curves show.")
    parser.add_argument(
        "--teacher", action="append", help="Reference of a teacher. Repeat the option for several."
    )
    options = parser.parse_args()
    pictures = all_pictures(options.work_dir)
    if options.teacher:
        print_table(teacher_scores(options.teacher, pictures))
    else:
        clip = load_clip(f"local-dir:{options.student}", device="cpu", precision="float32")
        print(table(Served(clip), pictures, only_watched=True if options.watched else None))


if __name__ == "__main__":
    run(main)

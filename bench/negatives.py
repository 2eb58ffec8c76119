"""Measures what a reader of the texts alone tells of hard negatives, by kind, without a model.

It prints, for a file of captions, one a line, how many captions have a negative of each kind, and in what share of
the choices a logistic regression on 1- to 3-grams finds the caption.
"""

import argparse
import math
from pathlib import Path

from sds_clip.models.blind import Choice, blind_accuracy
from sds_clip.models.data.language import Language
from sds_clip.models.data.negatives import KINDS, hard_negatives


def table(captions: list[str]) -> list[str]:
    """The rows of a Markdown table: kind, and captions and share without and with balance."""
    language = Language(captions)
    rows = ["| kind | captions | told | balanced: captions | told |", "| --- | ---: | ---: | ---: | ---: |"]
    for kind in KINDS:
        cells: list[str] = [kind]
        for known in (None, language):
            choices = [
                Choice(caption, caption, negative)
                for index, caption in enumerate(captions)
                for negative in hard_negatives(caption, 1, kinds=(kind,), language=known, seed=0, index=index)
            ]
            found = blind_accuracy(choices, most=len(choices))
            rate = "" if math.isnan(found.accuracy) else f"{found.accuracy:.1%} ± {found.half_width:.1%}"
            cells += [str(len(choices)), rate]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, nargs="?", default="tests/models/data/sugarcrepe/captions.txt")
    print(*table(parser.parse_args().captions.read_text(encoding="utf-8").splitlines()), sep="\n")

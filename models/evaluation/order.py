"""ARO's COCO-Order and Flickr-Order: a true caption against wrong orders of its words.

The authors' code draws the orders anew in every run. Here a set is made once from a seed, stored, and
identified by its hash, which every result states.

The four wrong orders are those of arXiv 2210.01936, section 2.2. The authors' code finds nouns and adjectives
with spaCy's tagger. Here `sds_clip.models.data.phrases` finds them by function words: the last word of a run of
content words is its noun, and the words before it are its adjectives. Words are counted without punctuation,
which stays in place. A shuffle that gives the caption back is drawn again, unlike in the authors' code. If no
other order exists, there is none.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sds_clip.models.atomic import write_atomic
from sds_clip.models.data.phrases import Words, phrases_and_verbs
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.annotations import (
    Record,
    image_folder,
    image_path,
    read_json,
    texts_of,
    the_file,
)
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.captions_file import read_captions
from sds_clip.models.evaluation.items import Item
from sds_clip.models.files import sha256_of
from sds_clip.models.images.ref import ImageRef

FILES = {"coco-order": "coco_karpathy_test.json", "flickr-order": "flickr30k_test.json"}
LAYOUT = (
    "a captions file, such as coco_karpathy_test.json, or a file of word orders from an earlier run: "
    "{hash, seed, items: [{image, caption_options: [true, false, ...]}]}, or only the list of items"
)

MAX_WORDS = 30
"""The number of words of a caption that the authors keep."""

Units = list[list[int]]
"""Words that stay together, in the order of the text, by their places in it."""

_REMOVED = re.compile(r"([.!\"()*#:;~])")
_UINT64 = 2**64 - 1
_ATTEMPTS = 200  # to draw an order that differs from the caption


@dataclass(frozen=True)
class OrderSet:
    """Images, each with a true caption and wrong orders of it."""

    cases: tuple[tuple[str, tuple[str, ...]], ...]
    seed: int | None
    """None if the set was made elsewhere."""
    without_other_order: int
    """Number of captions left out because their words have only one order."""

    @property
    def hash(self) -> str:
        """SHA-256 of the cases in their order."""
        return hashlib.sha256(json.dumps(self.cases).encode()).hexdigest()


def order_benchmark(
    name: str, path: Path, images: Path | None, sets: Path, *, seed: int = 0
) -> CaptionChoice:
    """Read a captions file, or its folder, and its order set in the folder `sets`, which is made if missing.

    `path` may be an order set itself. Images are in `images`, or by default in `images/` or next to the file.
    The true caption must score strictly above all of its wrong orders.

    Raises:
        EvaluationError: no such file or folder, another layout, or a damaged stored set.
    """
    file = the_file(path, FILES[name])
    other = next((one for one, known in FILES.items() if one != name and file.name == known), None)
    if other is not None:
        raise EvaluationError(f"{file} is the file of {other}; give {FILES[name]}.")
    content = read_json(file, LAYOUT)
    made = _stored(content, file) if _is_order_set(content) else _made_once(name, file, images, sets, seed)
    folder = image_folder(images, file.parent, "images", first=made.cases[0][0])
    items = tuple(
        Item(
            id=str(number),
            images=(ImageRef(image_path(folder, image, f"{file}, case {number}")),),
            captions=captions,
        )
        for number, (image, captions) in enumerate(made.cases)
    )
    settings = {
        "order_set_hash": made.hash,
        "order_set_seed": made.seed,
        "captions_without_other_order": made.without_other_order,
    }
    return CaptionChoice(name, items, settings)


def make_order_set(file: Path, images: Path | None = None, *, seed: int = 0) -> OrderSet:
    """Give every caption of a file up to four wrong orders, as a pure function of the file and the seed.

    Raises: as `read_captions`, or EvaluationError if no caption has another order.
    """
    cases = []
    without = place = 0
    for item in read_captions(file, images):
        for caption in item.captions:
            true = cleaned(caption)
            wrong = shuffled_captions(true, seed=seed, place=place)
            place += 1
            if wrong:
                cases.append((item.id, (true, *wrong)))
            else:
                without += 1
    if not cases:
        raise EvaluationError(f"{file}: no caption has words that can be put in another order.")
    return OrderSet(tuple(cases), seed, without)


def _made_once(name: str, file: Path, images: Path | None, sets: Path, seed: int) -> OrderSet:
    source = sha256_of(file)
    stored = sets / f"{name}-{source[:16]}-seed{seed}.json"
    if stored.is_file():
        return _stored(read_json(stored, LAYOUT), stored)
    made = make_order_set(file, images, seed=seed)
    content = {
        "hash": made.hash,
        "seed": seed,
        "made_from_sha256": source,
        "without_other_order": made.without_other_order,
        "items": [{"image": image, "caption_options": captions} for image, captions in made.cases],
    }
    write_atomic(stored, json.dumps(content, ensure_ascii=False, indent=0))
    return made


def _is_order_set(content: Any) -> bool:
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], dict) and "caption_options" in content[0]
    return isinstance(content, dict) and "items" in content


def _stored(content: Any, file: Path) -> OrderSet:
    if isinstance(content, list):
        content = {"items": content}
    try:
        without = int(content.get("without_other_order", 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise EvaluationError(
            f"{file} must be {LAYOUT}, with a whole number of captions without other order."
        ) from error
    try:
        made = OrderSet(
            tuple(
                _case(Record(f"{file}, items[{number}]", record))
                for number, record in enumerate(content["items"])
            ),
            content.get("seed"),
            without,
        )
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"{file} must be {LAYOUT}.") from error
    if made.hash != content.get("hash", made.hash) or not made.cases:
        raise EvaluationError(
            f"{file} was changed: its content does not match its hash. Delete the file; the next run "
            "makes it again."
        )
    return made


def _case(record: Record) -> tuple[str, tuple[str, ...]]:
    options = record.values["caption_options"]
    if not isinstance(options, list) or len(options) < 2:
        raise EvaluationError(
            f"{record.where}: `caption_options` must be a list of a true caption and then false ones."
        )
    captions = texts_of(options, "caption_options", record.where)
    return record.text("image"), captions


def cleaned(caption: str) -> str:
    """Prepare a caption as the authors' code does: lower case, less punctuation, at most MAX_WORDS words."""
    return " ".join(_REMOVED.sub(" ", caption.lower()).split()[:MAX_WORDS])


def shuffled_captions(caption: str, *, seed: int, place: int) -> tuple[str, ...]:
    """Return up to four wrong orders of a cleaned caption, one per kind, as a pure function of the arguments.

    `place` is the caption's number in its set, so that equal captions are shuffled differently.
    """
    text = Words.of(caption)
    every = range(len(text.words))
    words, trigrams = [[place] for place in every], [[*every[start : start + 3]] for start in every[::3]]
    nouns, adjectives = _tagged(text)
    rest = sorted({*every} - {*nouns, *adjectives})
    kinds: tuple[tuple[Units, Sequence[Sequence[int]]], ...] = (
        (words, (nouns, adjectives)),
        (words, (rest,)),
        (words, trigrams),
        (trigrams, (range(len(trigrams)),)),
    )
    found = []
    for kind, (units, groups) in enumerate(kinds):
        entropy = [seed & _UINT64, place, kind, zlib.crc32(caption.encode())]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        shuffled = _differently(text, units, groups, rng)
        if shuffled is not None:
            found.append(_joined(text, shuffled))
    return tuple(found)


def _differently(
    text: Words, units: Units, groups: Sequence[Sequence[int]], rng: np.random.Generator
) -> list[str] | None:
    """Exchange the units of each group, given by their numbers, until the text is another one."""
    said = [[text.words[place] for place in unit] for unit in units]
    if not any(len({tuple(said[number]) for number in group}) > 1 for group in groups):
        return None
    for _ in range(_ATTEMPTS):
        order = list(range(len(units)))
        for group in groups:
            for number, drawn in zip(group, rng.permutation(len(group)), strict=True):
                order[number] = group[drawn]
        words = [word for number in order for word in said[number]]
        if words != list(text.words):
            return words
    return None  # as for `a a a a`, whose trigrams differ but give the same text in any order


def _tagged(text: Words) -> tuple[list[int], list[int]]:
    phrases, _ = phrases_and_verbs(text)
    nouns = [phrase.stop - 1 for phrase in phrases]
    return nouns, [place for phrase in phrases for place in range(phrase.start, phrase.stop - 1)]


def _joined(text: Words, words: list[str]) -> str:
    return text.gaps[0] + "".join(word + gap for word, gap in zip(words, text.gaps[1:], strict=True))

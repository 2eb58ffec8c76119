"""SugarCrepe and SugarCrepe++: COCO images, true captions, and a fluent false one.

SugarCrepe is seven files over COCO val2017, {"0": {filename, caption, negative_caption}, ...}, whose keys
have gaps. SugarCrepe++ is lists of {id, filename, caption, caption2, negative_caption}; both captions are
true. It has two tasks, of which the text-only one compares the captions with each other, and needs no images (arXiv
2406.11171; VLMs/test_Variants_CLIP.py of github.com/Sri-Harsha/scpp computes both).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.annotations import Record, other_layout, read_json
from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.caption_choice import MICRO, OUTCOME, caption_scores
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.layouts import Layout, Numbered
from sds_clip.models.evaluation.results import ItemOutcome, Results
from sds_clip.models.evaluation.scorers import Scorer, cosines, features_of
from sds_clip.models.images.ref import ImageRef

FILES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")

_ITEMS = 512  # items whose features are in memory at once


def sugarcrepe_pp_text(path: Path) -> "TextOnly":
    """Read the same files for the text-only task, without their images. Raises: as `Layout.read`."""
    items, sources = TEXT_ONLY.read(path, None)
    return TextOnly("sugarcrepe-pp-text", tuple(replace(item, images=()) for item in items), {}, sources)


def _by_key(layout: Layout, file: Path) -> Numbered:
    content = read_json(file, layout.words)
    if not isinstance(content, dict) or not content:
        raise other_layout(file, layout.words)
    for key, record in content.items():
        where = f"{file}, {key!r}"
        if not isinstance(record, dict):
            raise EvaluationError(f"{where} must be an object; the file must be {layout.words}.")
        found = Record(where, record)
        found.require(layout.keys, layout.words)
        yield key, found


SUGARCREPE = Layout(
    name="sugarcrepe",
    title="SugarCrepe",
    words='{"0": {filename, caption, negative_caption}, ...}, as SugarCrepe has it',
    files={f"{name}.json": name for name in FILES},
    folders=("val2017", "images"),
    reader=_by_key,
    keys=("filename", "caption", "negative_caption"),
    images=("filename",),
    captions=("caption", "negative_caption"),
)
PLUS_PLUS = Layout(
    name="sugarcrepe-pp",
    positives=2,
    title="SugarCrepe++",
    words="a list of {id, filename, caption, caption2, negative_caption}, as SugarCrepe++ has it",
    folders=SUGARCREPE.folders,
    keys=("id", "filename", "caption", "caption2", "negative_caption"),
    images=("filename",),
    captions=("caption", "caption2", "negative_caption"),
)
sugarcrepe, sugarcrepe_pp = SUGARCREPE.choice, PLUS_PLUS.choice

# No image is read, so any text will do for its name.
TEXT_ONLY = replace(PLUS_PLUS, image=lambda record, key, _: ImageRef(Path(record.text(key))))


@dataclass(frozen=True)
class TextOnly(Benchmark):
    """Items of two true captions and a false one, without an image. The text encoder alone is measured."""

    macro_tags: tuple[str, ...]

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
        """Compute the share of items whose true captions are closer to each other than to the false one.

        Chance is 1/3, since any of the three similarities may be the highest.
        """
        clip = features_of(scorer)
        outcomes: list[ItemOutcome] = []
        for start in range(0, len(items), _ITEMS):
            chunk = items[start : start + _ITEMS]
            features = clip.text_features([caption for item in chunk for caption in item.captions])
            features = features.reshape(len(chunk), 3, -1)
            for item, similarities in zip(chunk, cosines(features, features), strict=True):
                check_finite(similarities)
                outcomes.append(outcome_of(item, {OUTCOME: text_only_margin(similarities)}))
        return caption_scores(self.name, outcomes, {MICRO: OUTCOME}, lambda *_: 1 / 3, self.macro_tags)


def text_only_margin(similarities: Float[Tensor, "3 3"]) -> float:
    """Return s(c, c2) - max(s(c, n), s(c2, n)) for the captions c and c2 and the false one n, in this order."""
    (_, both, first), (_, _, second), _ = similarities.double().tolist()
    return float(both - max(first, second))

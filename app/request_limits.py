"""How much one request may contain, checked before anything is decoded or encoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sds_clip.app.errors import Counted, InvalidTemplate, InvalidText, TextTooLong, TooMany
from sds_clip.app.json_bounds import JsonBounds
from sds_clip.app.settings import MAX_TEXTS
from sds_clip.models.choices import TemplateSet
from sds_clip.models.clip.zero_shot import PLACES
from sds_clip.models.images.decode import ImageLimits


@dataclass(frozen=True)
class Limits:
    """Counts and lengths that a request may not exceed. Each check raises InvalidRequest."""

    images: int
    image: ImageLimits
    texts: int = MAX_TEXTS
    labels: int = 4096
    templates: int = 128
    text_chars: int = 4096
    prompts: int = 131_072
    label_chars: int = 512

    def json(self, fields: Iterable[str]) -> JsonBounds:
        """What the JSON of a schema with these fields may hold. A character takes up to twelve bytes."""
        # OpenAI's and Cohere's items are objects in objects, with up to ten signs, and an image may be an object.
        items = 10 * (self.images + self.texts)
        signs = {
            "images": 4 * self.images,
            "texts": 2 * self.texts,
            "labels": 2 * self.labels,
            "templates": 2 * self.templates,
            "input": items,
            "inputs": items,
        }
        given = signs.keys() & set(fields)
        return JsonBounds(
            2048 + sum(signs[field] for field in given),
            12 * self.text_chars,
            images=not given.isdisjoint(["images", "input", "inputs"]),
        )

    def check_images(self, images: Sequence[object]) -> None:
        _check_count("images", images, self.images)

    def check_texts(self, texts: Sequence[str], *, param: Literal["texts", "labels"] = "texts") -> None:
        labels = param == "labels"
        _check_count(param, texts, self.labels if labels else self.texts)
        _check_texts(param, texts, self.label_chars if labels else self.text_chars)

    def check_templates(self, templates: Sequence[str], labels: Sequence[str]) -> None:
        """Check the number of templates, that each has a place for the label, and the prompts' length."""
        _check_count("templates", templates, self.templates)
        longest = max(map(len, labels))
        _check_texts("templates", templates, self.text_chars)
        for index, template in enumerate(templates):
            # A template may contain the label several times, so the limit applies to the filled prompt.
            places = sum(template.count(place) for place in PLACES)
            if len(template) + places * longest > self.text_chars:
                raise TextTooLong(
                    f"With its longest label, the template has more than {self.text_chars} characters; shorten "
                    "one of them.",
                    param="templates",
                    index=index,
                )
            if places == 0:
                raise InvalidTemplate(
                    "A template needs {} in place of the label, as in 'a photo of a {}'. The named sets are "
                    f"{' and '.join(get_args(TemplateSet))}.",
                    param="templates",
                    index=index,
                )
        prompts = len(labels) * len(templates)
        if prompts > self.prompts:
            raise TooMany(
                "prompts",
                f"{len(labels)} labels in {len(templates)} templates make {prompts} prompts; "
                f"at most {self.prompts} are allowed. Send several requests.",
                param="labels",
            )


def _check_texts(param: str, texts: Sequence[str], max_chars: int) -> None:
    for index, text in enumerate(texts):
        if not text or text.isspace():
            raise InvalidText("The text is empty; write it, or leave it out.", param=param, index=index)
        if len(text) > max_chars:
            raise TextTooLong(
                f"The text has {len(text)} characters; at most {max_chars} are allowed. Shorten it.",
                param=param,
                index=index,
            )
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidText(
                "The text contains half of a surrogate pair, which is not a character; correct it.",
                param=param,
                index=index,
            )


def _check_count(param: Counted, items: Sequence[object], limit: int) -> None:
    if len(items) > limit:
        raise TooMany(
            param,
            f"The request has {len(items)} {param}; at most {limit} are allowed. Send several requests.",
            param=param,
        )

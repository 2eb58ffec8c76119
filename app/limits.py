"""How much one request may hold; checked before anything is decoded or encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import InvalidRequest
from models.images import ImageLimits


@dataclass(frozen=True)
class Limits:
    """Counts and lengths that a request may not exceed."""

    images: int = 64
    texts: int = 1024
    labels: int = 4096
    templates: int = 128
    prompts: int = 131_072
    text_chars: int = 4096
    image: ImageLimits = ImageLimits()  # noqa: RUF009 - frozen

    def check_images(self, images: Sequence[object]) -> None:
        """Raise InvalidRequest when there are too many images."""
        _check_count("images", images, self.images)

    def check_texts(self, texts: Sequence[str], *, param: str = "texts") -> None:
        """Raise InvalidRequest when there are too many texts, or one is too long."""
        _check_count(param, texts, self.labels if param == "labels" else self.texts)
        self._check_lengths(param, texts)

    def check_templates(self, templates: Sequence[str], *, labels: int) -> None:
        """Raise InvalidRequest for too many templates, or one without a place for the label."""
        _check_count("templates", templates, self.templates)
        self._check_lengths("templates", templates)
        for index, template in enumerate(templates):
            if "{}" not in template and "{c}" not in template:
                raise InvalidRequest(
                    "A template needs {} where the label goes, as in 'a photo of a {}'.",
                    code="invalid_template",
                    param="templates",
                    index=index,
                )
        if labels * len(templates) > self.prompts:
            raise InvalidRequest(
                f"{labels} labels in {len(templates)} templates are {labels * len(templates)} prompts; "
                f"{self.prompts} at most are allowed.",
                code="too_many_prompts",
                param="labels",
            )

    def _check_lengths(self, param: str, texts: Sequence[str]) -> None:
        for index, text in enumerate(texts):
            if len(text) > self.text_chars:
                raise InvalidRequest(
                    f"The text has {len(text)} characters; {self.text_chars} at most are allowed.",
                    code="text_too_long",
                    param=param,
                    index=index,
                )


def _check_count(param: str, items: Sequence[object], limit: int) -> None:
    if len(items) > limit:
        raise InvalidRequest(
            f"{len(items)} {param} were given; {limit} at most are allowed. Send several requests.",
            code=f"too_many_{param}",
            param=param,
        )

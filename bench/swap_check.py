"""Checks each answer against the scores of the version it names, computed separately."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.load import TEXT, Answer, Call, text_of
from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.zero_shot import class_weights, prompts
from sds_clip.models.images.decode import decode_image

# How far a score may be from the one computed in another batch.
TOLERANCE = {"float32": 2e-4, "bfloat16": 2e-2}


@dataclass
class Checked:
    """Number of answers compared, number not of their version, and the largest deviation."""

    answers: int = 0
    mixed: int = 0
    furthest: float = 0.0


class Reference:
    """One version's scores for any image and text of the load."""

    def __init__(self, reference: str, precision: str, images: Sequence[str], calls: Sequence[Call]) -> None:
        self.clip: Clip = load_served(reference, device="cpu", precision=precision)
        side = self.clip.least_side
        pixels = [
            self.clip.preprocess(decode_image(Path(image).read_bytes(), least_side=side)) for image in images
        ]
        self.images = torch.cat([self.clip.encode_image(torch.stack([each])) for each in pixels])
        self._calls = calls

    def scores(self, answer: Answer) -> Tensor:
        """This version's scores for the request, in the order of its texts or labels."""
        return self.texts(answer) @ self.image(answer)

    def image(self, answer: Answer) -> Tensor:
        return self.images[answer.number % len(self.images)]

    def texts(self, answer: Answer) -> Tensor:
        call = self._calls[answer.number % len(self._calls)]
        if call.path == "/classify":
            return self.classes
        return self._encoded(json.loads(call.body.replace(TEXT, text_of(answer.number)))["texts"])

    @cached_property
    def classes(self) -> Tensor:
        """Class weights of the load's one label set."""
        body = next(json.loads(call.body) for call in self._calls if call.path == "/classify")
        filled = prompts(body["labels"], body["templates"])
        return class_weights(self._encoded(filled), len(body["templates"]))

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        return torch.cat([self.clip.encode_text(self.clip.tokenizer([text])) for text in texts])


def check(answers: Sequence[Answer], references: dict[str, Reference], allowed: float) -> Checked:
    """Compare every answer with its version; a score more than `allowed` off is not that version's."""
    checked = Checked()
    for answer in answers:
        content = json.loads(answer.body)
        expected = references[content["model"]["version"]].scores(answer)
        off = float((_scores(content) - expected).abs().max())
        checked.answers += 1
        checked.mixed += off > allowed
        checked.furthest = max(checked.furthest, off)
    return checked


def separation(answers: Sequence[Answer], references: dict[str, Reference]) -> float:
    """The least deviation of a mixed answer: one version's image with another's texts, or all another's."""
    pairs = [(one, other) for one in references.values() for other in references.values() if one is not other]
    found = [
        float((one.texts(answer) @ image - other.scores(answer)).abs().max())
        for answer in answers
        for one, other in pairs
        for image in (one.image(answer), other.image(answer))
    ]
    return min(found)


def _scores(content: dict[str, list[dict[str, list[dict[str, float]]]]]) -> Tensor:
    first = content["results"][0]
    if "scores" in first:
        return torch.tensor(first["scores"])
    ordered = sorted(first["predictions"], key=lambda found: found["index"])
    return torch.tensor([found["score"] for found in ordered])

"""The three verbs: match, classify and embed, from a checked body to the answer.

Each takes its reference to the model once, at the start, and holds it to the end: images, texts and class
weights of one answer are of one version, whatever is swapped in meanwhile.
"""

import base64
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from app.errors import ServiceError, body
from app.limits import Limits
from app.schemas.classify import ClassifyRequest, ClassifyResponse, ImageClasses, Prediction
from app.schemas.common import ErrorDetail, ItemError
from app.schemas.embed import Embedding, EmbedRequest, EmbedResponse
from app.schemas.match import ImageMatch, MatchRequest, MatchResponse
from app.serving.classes import ClassSet, ClassWeights
from app.serving.engine import Engine
from app.serving.pixels import Decoded, ImageReader
from app.serving.served import Served
from models import scoring, zero_shot

Answer = TypeVar("Answer", ImageMatch, ImageClasses, Embedding)


class Inference:
    """Answers requests with the engine, the image reader and the class weights of the process."""

    def __init__(self, engine: Engine, images: ImageReader, classes: ClassWeights, limits: Limits) -> None:
        self._engine = engine
        self._images = images
        self._classes = classes
        self._limits = limits

    async def match(self, request: MatchRequest) -> MatchResponse:
        """Score every text against every image."""
        served = self._engine.models.resolve(request.model)
        self._limits.check_images(request.images)
        self._limits.check_texts(request.texts)
        async with self._engine.request(served, images=len(request.images), texts=request.texts):
            decoded = await self._images.read(request.images, served, request.on_error)
            match = await self._engine.encode(
                served,
                pixels=list(decoded.pixels.values()),
                texts=request.texts,
                finish=lambda features: _match(served, features.images, features.texts),
            )
        rows = zip(match.scores.tolist(), match.logits.tolist(), match.probabilities.tolist(), strict=True)
        answers = [
            ImageMatch(
                index=index,
                scores=scores,
                logits=logits,
                probabilities=probabilities,
                best=scores.index(max(scores)),
            )
            for index, (scores, logits, probabilities) in zip(decoded.pixels, rows, strict=True)
        ]
        return MatchResponse(
            model=served.info,
            results=_in_order(answers, decoded),
            text_probabilities=match.text_probabilities.tolist(),
        )

    async def classify(self, request: ClassifyRequest) -> ClassifyResponse:
        """Find each image's most probable labels."""
        served = self._engine.models.resolve(request.model)
        self._limits.check_images(request.images)
        classes = self._class_set(request)
        async with self._engine.request(served, images=len(request.images)):
            served, weights = await self._classes.of(served, classes)
            decoded = await self._images.read(request.images, served, request.on_error)
            top = await self._engine.encode(
                served,
                pixels=list(decoded.pixels.values()),
                finish=lambda features: _top(served, features.images, weights, request.top_k),
            )
        answers = [
            ImageClasses(index=index, predictions=_predictions(classes.labels, *row))
            for index, row in zip(decoded.pixels, top, strict=True)
        ]
        return ClassifyResponse(model=served.info, results=_in_order(answers, decoded))

    async def embed(self, request: EmbedRequest) -> EmbedResponse:
        """Encode images or texts."""
        served = self._engine.models.resolve(request.model)
        self._limits.check_images(request.images)
        self._limits.check_texts(request.texts)
        async with self._engine.request(served, images=len(request.images), texts=request.texts):
            decoded = await self._images.read(request.images, served, request.on_error)
            features = await self._engine.encode(
                served,
                pixels=list(decoded.pixels.values()),
                texts=request.texts,
                finish=lambda features: features,
                normalize=request.normalize,
            )
        vectors = features.images if request.images else features.texts
        indices = list(decoded.pixels) if request.images else range(len(request.texts))
        answers = [
            Embedding(index=index, embedding=embedding)
            for index, embedding in zip(indices, _encoded(vectors, request.encoding_format), strict=True)
        ]
        return EmbedResponse(
            model=served.info,
            dimensions=served.clip.embed_dim,
            results=_in_order(answers, decoded),
        )

    def _class_set(self, request: ClassifyRequest) -> ClassSet:
        labels = zero_shot.IMAGENET_LABELS if request.labels == "imagenet" else tuple(request.labels)
        match request.templates:
            case "simple":
                templates = zero_shot.SIMPLE_TEMPLATES
            case "openai":
                templates = zero_shot.OPENAI_TEMPLATES
            case own:
                templates = tuple(own)
        self._limits.check_texts(labels, param="labels")
        self._limits.check_templates(templates, labels)
        return ClassSet(labels, templates)


def _match(served: Served, image_features: Tensor, text_features: Tensor) -> scoring.Match:
    clip = served.clip
    return scoring.match(
        image_features, text_features, logit_scale=clip.logit_scale, logit_bias=clip.logit_bias
    )


def _top(
    served: Served, image_features: Tensor, weights: Tensor, count: int
) -> list[tuple[list[int], list[float], list[float]]]:
    """Each image's best classes: their indices, cosines and probabilities, the best first."""
    match = _match(served, image_features, weights)
    scores, indices = match.scores.topk(min(count, len(weights)), dim=1)
    probabilities = match.probabilities.gather(1, indices)
    return list(zip(indices.tolist(), scores.tolist(), probabilities.tolist(), strict=True))


def _predictions(
    labels: Sequence[str], indices: list[int], scores: list[float], probabilities: list[float]
) -> list[Prediction]:
    return [
        Prediction(label=labels[index], index=index, score=score, probability=probability)
        for index, score, probability in zip(indices, scores, probabilities, strict=True)
    ]


def _encoded(vectors: Tensor, encoding: str) -> list[list[float]] | list[str]:
    if encoding == "float":
        return vectors.tolist()
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors.numpy()]


def _in_order(answers: Sequence[Answer], decoded: Decoded) -> list[Answer | ItemError]:
    """Answers and errors, in the order of the request."""
    results: list[Answer | ItemError] = list(answers)
    results += [_item_error(index, error) for index, error in decoded.errors.items()]
    return sorted(results, key=lambda result: result.index)


def _item_error(index: int, error: ServiceError) -> ItemError:
    return ItemError(index=index, error=ErrorDetail(**body(error)["error"]))

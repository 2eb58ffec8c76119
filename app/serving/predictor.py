"""The three operations match, classify and embed, from a checked body to the answer.

Each takes its model once, at the start, and keeps it to the end. The images, texts and class weights of one
answer therefore belong to one version, whatever is swapped in meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch.nn.functional as F
from torch import Tensor

from sds_clip.app.budgets import Rate
from sds_clip.app.errors import DimensionsNotOffered, ServiceError, UnknownModel, body, log_cause
from sds_clip.app.keys import Caller
from sds_clip.app.request_limits import Limits
from sds_clip.app.schemas.classify import (
    ClassifyBody,
    ClassifyComparison,
    ClassifyComparisonRequest,
    ClassifyRequest,
    ClassifyResponse,
    ImageClasses,
    Prediction,
)
from sds_clip.app.schemas.common import ErrorDetail, ImageInput, ItemError, ModelError, OnError
from sds_clip.app.schemas.embed import Embedding, EmbedRequest, EmbedResponse
from sds_clip.app.schemas.match import (
    ImageMatch,
    MatchBody,
    MatchComparison,
    MatchComparisonRequest,
    MatchRequest,
    MatchResponse,
)
from sds_clip.app.serving import turns, version_cache
from sds_clip.app.serving.classes import ClassSet, ClassWeights
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.forward import Features, as_features
from sds_clip.app.serving.image_reader import Decoded, ImageReader, RequestImages
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.app.serving.version_cache import VersionCache
from sds_clip.models.clip import scoring
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.zero_shot import LABEL_SETS, TEMPLATE_SETS

Answer = TypeVar("Answer", ImageMatch, ImageClasses, Embedding)
Response = TypeVar("Response", MatchResponse, ClassifyResponse)
Decode = Callable[[Clip], Awaitable[Decoded]]
"""Decodes a request's images as a model takes them."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Answers requests with the process's engine, image reader and class weights."""

    _engine: Engine
    _versions: VersionCache
    _images: ImageReader
    _classes: ClassWeights
    _limits: Limits
    _item_rate: Rate

    async def match(self, caller: Caller, request: MatchRequest) -> MatchResponse:
        self._check_match(request)
        model = await self.model(caller, request.model)
        self._item_rate.spend(caller.name, _items_of(request))
        new_texts = self._engine.new_texts(model, request.texts)
        async with self._engine.admit(
            len(request.images), len(new_texts), caller=caller.name, lane=model.name
        ):
            return await self._match(request, self._decode(request, caller), model, new_texts)

    async def compare_matches(self, caller: Caller, request: MatchComparisonRequest) -> MatchComparison:
        self._check_match(request)
        models = await self._models(caller, request.models)
        new_texts = {model: self._engine.new_texts(model, request.texts) for model in _handles(models)}

        async def answer(model: ModelHandle, decode: Decode) -> MatchResponse:
            return await self._match(request, decode, model, new_texts[model])

        self._item_rate.spend(caller.name, len(models) * _items_of(request))  # an error is an answer too
        texts = sum(map(len, new_texts.values()))
        return MatchComparison(answers=await self._compare(caller, request, models, texts, answer))

    async def classify(self, caller: Caller, request: ClassifyRequest) -> ClassifyResponse:
        classes = self._check_classify(request)
        model = await self.model(caller, request.model)
        self._item_rate.spend(
            caller.name, len(request.images) + self._classes.waiting_prompts(model, classes)
        )
        async with self._engine.admit(len(request.images), 0, caller=caller.name, lane=model.name):
            return await self._classify(request, classes, self._decode(request, caller), model)

    async def compare_classes(self, caller: Caller, request: ClassifyComparisonRequest) -> ClassifyComparison:
        classes = self._check_classify(request)
        models = await self._models(caller, request.models)

        async def answer(model: ModelHandle, decode: Decode) -> ClassifyResponse:
            return await self._classify(request, classes, decode, model)

        prompts = sum(self._classes.waiting_prompts(model, classes) for model in _handles(models))
        # an error is an answer too
        self._item_rate.spend(caller.name, len(models) * len(request.images) + prompts)
        return ClassifyComparison(answers=await self._compare(caller, request, models, 0, answer))

    async def embed(self, caller: Caller, request: EmbedRequest) -> EmbedResponse:
        found = await self.features(
            caller,
            request.model,
            request.images,
            request.texts,
            normalize=request.normalize,
            on_error=request.on_error,
        )
        vectors = found.features.images if request.images else found.features.texts
        indices = list(found.decoded.pixels) if request.images else range(len(request.texts))
        answers = [
            Embedding(index=index, embedding=embedding)
            for index, embedding in zip(indices, written(vectors, request.encoding_format), strict=True)
        ]
        return EmbedResponse(
            model=found.model.info,
            dimensions=found.model.clip.embed_dim,
            results=_in_order(answers, found.decoded),
        )

    async def _match(
        self, request: MatchBody, decode: Decode, model: ModelHandle, new_texts: Sequence[str]
    ) -> MatchResponse:
        decoded = await decode(model.clip)
        match = await self._engine.encode(
            model,
            partial(_matched, model.clip),
            pixels=list(decoded.pixels.values()),
            texts=request.texts,
            new_texts=new_texts,
        )
        rows = zip(match.scores.tolist(), match.logits.tolist(), match.probabilities.tolist(), strict=True)
        answers = [
            ImageMatch(
                index=index,
                scores=scores,
                logits=logits,
                probabilities=probabilities,
                best=(best := scores.index(max(scores))),
                best_text=request.texts[best],
            )
            for index, (scores, logits, probabilities) in zip(decoded.pixels, rows, strict=True)
        ]
        return MatchResponse(
            model=model.info,
            results=_in_order(answers, decoded),
            text_probabilities=match.text_probabilities.tolist() if len(request.images) > 1 else None,
        )

    async def _classify(
        self, request: ClassifyBody, classes: ClassSet, decode: Decode, model: ModelHandle
    ) -> ClassifyResponse:
        # The previous version answers while a large set is being encoded for this one.
        model, weights = await self._classes.of(model, classes)
        decoded = await decode(model.clip)
        top = await self._engine.encode(
            model,
            partial(_best_classes, model.clip, weights, request.top_k),
            pixels=list(decoded.pixels.values()),
        )
        answers = [
            ImageClasses(index=index, predictions=_predictions(classes.labels, best))
            for index, best in zip(decoded.pixels, top, strict=True)
        ]
        return ClassifyResponse(model=model.info, results=_in_order(answers, decoded))

    async def features(
        self,
        caller: Caller,
        model: str | None,
        images: Sequence[ImageInput],
        texts: Sequence[str],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        on_error: OnError = "fail",
    ) -> Embedded:
        """Embed images and texts in one batch: what /embed and the other protocols' routes answer with.

        With `dimensions`, vectors are cut to that length, and then normalised again.

        Raises:
            DimensionsNotOffered: the model was not trained for that length.
        """
        self._limits.check_images(images)
        self._limits.check_texts(texts)
        handle = await self.model(caller, model)
        if dimensions is not None:
            _check_dimensions(handle.clip, dimensions)
        self._item_rate.spend(caller.name, len(images) + len(texts))
        new_texts = self._engine.new_texts(handle, texts)
        async with self._engine.admit(len(images), len(new_texts), caller=caller.name, lane=handle.name):
            decoded = await self._images.read(images, handle.clip, on_error, caller=caller.name)
            features = await self._engine.encode(
                handle,
                as_features if dimensions is None else partial(_shortened, dimensions),
                pixels=list(decoded.pixels.values()),
                texts=texts,
                new_texts=new_texts,
                normalize=normalize,
            )
        return Embedded(handle, decoded, features)

    def _decode(self, request: MatchBody | ClassifyBody, caller: Caller) -> Decode:
        return partial(self._images.read, request.images, on_error=request.on_error, caller=caller.name)

    async def _compare(
        self,
        caller: Caller,
        request: MatchComparisonRequest | ClassifyComparisonRequest,
        models: Sequence[ModelHandle | ServiceError],
        texts: int,
        answer: Callable[[ModelHandle, Decode], Awaitable[Response]],
    ) -> list[Response | ModelError]:
        """The answer of each model, or why it cannot answer. They are admitted and have their turn together.

        `texts` are the new ones of all models. Images that cannot be read fail the request.
        """
        decoded = RequestImages(self._decode(request, caller))
        images = len(_handles(models)) * len(request.images)
        at_once = asyncio.Semaphore(self._engine.at_once(len(models), images, texts))

        async def one(name: str, model: ModelHandle | ServiceError) -> Response | ModelError:
            if isinstance(model, ServiceError):
                return _model_error(name, model)
            try:
                async with at_once:
                    await turns.give_way()
                    return await answer(model, decoded.of)
            except ServiceError as error:
                if decoded.raised(error):
                    raise
                log_cause(error)
                return _model_error(name, error)

        async with self._engine.admit(images, texts, caller=caller.name):
            try:
                async with asyncio.TaskGroup() as tasks:
                    pairs = zip(request.models, models, strict=True)
                    answers = [tasks.create_task(one(name, model)) for name, model in pairs]
            except* ServiceError as errors:
                raise errors.exceptions[0] from None
            finally:
                await decoded.close()
        return [each.result() for each in answers]

    async def model(self, caller: Caller, name: str | None) -> ModelHandle:
        """A version by its id, loaded if necessary; what the name serves now; or a version that begins so."""
        if (version := await self._versions.get(name, caller)) is not None:
            return version
        try:
            return self._engine.models.resolve(name)
        except UnknownModel:
            found = await self._versions.get(await self._versions.id_of(name, caller), caller)
            if found is None:
                raise
            return found

    async def _models(self, caller: Caller, names: Sequence[str]) -> list[ModelHandle | ServiceError]:
        """For each name its model, or why there is none. They keep to the key's share of loads by themselves."""
        loads = asyncio.Semaphore(version_cache.MAX_LOADS_PER_KEY)

        async def find(name: str) -> ModelHandle:
            async with loads:
                return await self.model(caller, name)

        found = await asyncio.gather(*map(find, names), return_exceptions=True)
        models = list[ModelHandle | ServiceError]()
        for each in found:
            if not isinstance(each, ModelHandle | ServiceError):
                raise each
            models.append(each)
        return models

    def _check_match(self, request: MatchBody) -> None:
        self._limits.check_images(request.images)
        self._limits.check_texts(request.texts)

    def _check_classify(self, request: ClassifyBody) -> ClassSet:
        self._limits.check_images(request.images)
        named, chosen = request.labels, request.templates
        labels = LABEL_SETS[named] if isinstance(named, str) else tuple(named)
        templates = TEMPLATE_SETS[chosen] if isinstance(chosen, str) else tuple(chosen)
        self._limits.check_texts(labels, param="labels")
        self._limits.check_templates(templates, labels)
        return ClassSet(labels, templates)


@dataclass(frozen=True, eq=False)
class Embedded:
    """The features of a request's readable images and of its texts, and the model that made them."""

    model: ModelHandle
    decoded: Decoded
    features: Features


TopClasses = tuple[list[int], list[float], list[float]]
"""The indices, scores and probabilities of an image's best classes, best first."""


def _matched(clip: Clip, features: Features) -> scoring.Match:
    """Cosines, logits and probabilities of every image and text."""
    return scoring.match(
        features.images, features.texts, logit_scale=clip.logit_scale, logit_bias=clip.logit_bias
    )


def _best_classes(clip: Clip, class_weights: Tensor, top_k: int, features: Features) -> list[TopClasses]:
    """The `top_k` best classes of every image. `class_weights` is [c, d]."""
    match = _matched(clip, Features(features.images, class_weights))
    scores, indices = match.scores.topk(min(top_k, len(class_weights)), dim=1)
    probabilities = match.probabilities.gather(1, indices)
    return list(zip(indices.tolist(), scores.tolist(), probabilities.tolist(), strict=True))


def _shortened(dimensions: int, features: Features) -> Features:
    """The first numbers of every vector, scaled to length 1 (arXiv 2205.13147)."""
    images, texts = features.images[:, :dimensions], features.texts[:, :dimensions]
    return Features(F.normalize(images, dim=-1), F.normalize(texts, dim=-1))


def _check_dimensions(clip: Clip, dimensions: int) -> None:
    offered = sorted({*clip.dimensions, clip.embed_dim})
    if dimensions not in offered:
        raise DimensionsNotOffered(
            f"This model's vectors cannot have {dimensions} numbers; they have {clip.embed_dim}"
            + (
                f", and can be cut to {', '.join(map(str, offered[:-1]))}."
                if offered[1:]
                else ". Ask for no other length."
            ),
            param="dimensions",
        )


def _predictions(labels: Sequence[str], best: TopClasses) -> list[Prediction]:
    return [
        Prediction(label=labels[index], index=index, score=score, probability=probability)
        for index, score, probability in zip(*best, strict=True)
    ]


def written(vectors: Tensor, encoding: Literal["float", "base64"]) -> list[list[float]] | list[str]:
    """Each vector as numbers, or as little-endian float32 values in base64."""
    if encoding == "float":
        return vectors.tolist()
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors.numpy()]


def _items_of(request: MatchBody) -> int:
    return len(request.images) + len(request.texts)


def _handles(models: Sequence[ModelHandle | ServiceError]) -> list[ModelHandle]:
    return [model for model in models if isinstance(model, ModelHandle)]


def _model_error(name: str, error: ServiceError) -> ModelError:
    detail = ErrorDetail(**body(error)["error"]).model_copy(update={"param": "models"})
    return ModelError(name=name, error=detail, retry_after_s=error.retry_after_s)


def _in_order(answers: Sequence[Answer], decoded: Decoded) -> list[Answer | ItemError]:
    results: list[Answer | ItemError] = list(answers)
    for index, error in decoded.errors.items():
        results.append(ItemError(index=index, error=ErrorDetail(**body(error)["error"])))
    return sorted(results, key=lambda result: result.index)

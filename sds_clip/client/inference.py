"""Match, classify and embed: lists of any length, in as many requests as the service takes, answered as one.

Each is a generator that yields calls and is sent their answers or the errors that they are, so that both faces do the
same (`advance`). What fits into one request is one request, and its answer is the service's own.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sds_clip.client.calls import Call, given
from sds_clip.client.errors import APIError, ClientError
from sds_clip.client.images import ImageLike, encoded, listed

Json: TypeAlias = dict[str, Any]
Exchange: TypeAlias = Generator[Call, Json, Json]

MAX_IMAGES = 64
MAX_TEXTS = 1024
"""Of one request, as the service has them by default. One that takes fewer says so, and is sent fewer."""
_TOO_MUCH = ("too_many_images", "too_many_texts", "body_too_large")
_TRIES = 3
"""How often everything is asked again where the model is swapped between two requests."""
_NAMED = {"labels": ("imagenet",), "templates": ("simple", "openai")}


class _Part(NamedTuple):
    """An answer, and which image and text of all are its first."""

    image: int
    text: int
    answer: Json


def match(images: Iterable[ImageLike], texts: Iterable[str], options: Mapping[str, Any]) -> Exchange:
    """POST /match. The probabilities of a joined answer are computed anew, over all texts and over all images."""
    parts = yield from _answers("/match", listed(images), strings("texts", texts), given(options))
    return parts[0].answer if len(parts) == 1 else _joined_match(parts)


def classify(
    images: Iterable[ImageLike], labels: Iterable[str] | str, options: Mapping[str, Any]
) -> Exchange:
    """POST /classify. Labels are not split: they are all compared with each other."""
    body = given(options) | {"labels": _strings_or_name("labels", labels)}
    if "templates" in body:
        body["templates"] = _strings_or_name("templates", body["templates"])
    parts = yield from _answers("/classify", listed(images), None, body)
    return _joined(parts)


def embed(
    images: Iterable[ImageLike] | None, texts: Iterable[str] | None, options: Mapping[str, Any]
) -> Exchange:
    """POST /embed."""
    parts = yield from _answers(
        "/embed",
        None if images is None else listed(images),
        None if texts is None else strings("texts", texts),
        given(options),
    )
    return _joined(parts)


def advance(exchange: Exchange, answer: Json | APIError | None) -> tuple[Call | None, Json]:
    """The next call, or None and the joined answer. It starts with None."""
    try:
        if isinstance(answer, APIError):
            return exchange.throw(answer), {}
        return exchange.send(answer), {}  # type: ignore[arg-type]  # None starts a generator
    except StopIteration as stop:
        return None, stop.value


def strings(name: str, given: Iterable[str]) -> list[str]:
    """A list of strings. Raises TypeError for one string in its place, and for what is none in it."""
    if isinstance(given, str | bytes):
        raise TypeError(
            f"{name} must be a list of strings, and is one string: put it into a list, [{given!r}]."
        )
    found = list(given)
    for index, each in enumerate(found):
        if not isinstance(each, str):
            raise TypeError(f"{name}[{index}] must be a string, and is of the type {type(each).__name__}.")
    return found


def _strings_or_name(name: str, given: Iterable[str] | str) -> list[str] | str:
    return given if isinstance(given, str) and given in _NAMED[name] else strings(name, given)


def _answers(
    path: str, images: list[ImageLike] | None, texts: list[str] | None, body: Json
) -> Generator[Call, Json, list[_Part]]:
    """The answers of one version of the model, for each image in the texts' order."""
    for _ in range(_TRIES):
        parts = yield from _asked(path, images, texts, body)
        if all(part.answer.get("model") == parts[0].answer.get("model") for part in parts):
            return parts
    raise ClientError(
        "The model was swapped again and again between the requests for one answer: ask again, or name a version "
        "as model.",
        code="model_swapped",
        param="model",
    )


def _asked(
    path: str, images: list[ImageLike] | None, texts: list[str] | None, body: Json
) -> Generator[Call, Json, list[_Part]]:
    size = {"images": MAX_IMAGES, "texts": MAX_TEXTS}
    parts: list[_Part] = []
    waiting = [(range(len(images or ())), range(len(texts or ())))]
    while waiting:
        rows, columns = waiting.pop()
        if len(rows) > size["images"]:
            waiting += [(rows[size["images"] :], columns), (rows[: size["images"]], columns)]
            continue
        if len(columns) > size["texts"]:
            waiting += [(rows, columns[size["texts"] :]), (rows, columns[: size["texts"]])]
            continue
        fields: Json = {}
        if images is not None:
            fields["images"] = [encoded(images[row], row) for row in rows]
        if texts is not None:
            fields["texts"] = [texts[column] for column in columns]
        image, text = rows.start, columns.start
        try:
            parts.append(_Part(image, text, (yield Call("POST", path, json={**fields, **body}))))
        except APIError as error:
            name = "texts" if error.code == "too_many_texts" or len(rows) < 2 else "images"
            count = len(columns) if name == "texts" else len(rows)
            if error.code not in _TOO_MUCH or count < 2:
                if error.index is not None:
                    error.index += {"images": image, "texts": text}.get(str(error.param), 0)
                raise
            size[name] = count // 2
            waiting.append((rows, columns))
    return parts


def _joined(parts: Sequence[_Part]) -> Json:
    """Results of images, or of texts, one after another."""
    results = [_moved(result, part.image + part.text) for part in parts for result in part.answer["results"]]
    return {**parts[0].answer, "results": results}


def _joined_match(parts: Sequence[_Part]) -> Json:
    rows: dict[int, Json] = {}
    for part in parts:
        for result in part.answer["results"]:
            moved = _moved(result, part.image)
            row = rows.setdefault(moved["index"], moved)
            if "error" in moved:
                rows[moved["index"]] = moved
            elif row is not moved and "error" not in row:
                row["scores"] = row["scores"] + moved["scores"]
                row["logits"] = row["logits"] + moved["logits"]
    activation = _activation(parts)
    answered = [row for row in rows.values() if "error" not in row]
    for row in answered:
        row["probabilities"] = activation(row["logits"])
        row["best"] = row["scores"].index(max(row["scores"]))
    count = max(part.text + len(part.answer["text_probabilities"]) for part in parts)
    columns = [[row["logits"][column] for row in answered] for column in range(count)]
    return {
        **parts[0].answer,
        "results": [rows[index] for index in sorted(rows)],
        "text_probabilities": [activation(column) for column in columns],
    }


def _activation(parts: Sequence[_Part]) -> Callable[[Sequence[float]], list[float]]:
    """What makes probabilities of logits: the one that made those in the parts. Raises ClientError."""
    fitting = [
        activation
        for activation in (_softmax, _sigmoids)
        if all(
            math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-9)
            for logits, probabilities in _pairs(parts)
            for one, other in zip(activation(logits), probabilities, strict=True)
        )
    ]
    if len(fitting) == 1 or not any(_pairs(parts)):
        return fitting[0]
    raise ClientError(
        "It cannot be told from the answers how the model makes probabilities of logits, so they cannot be joined: "
        "send fewer texts and images in one call.",
        code="cannot_join",
        param="texts",
    )


def _pairs(parts: Sequence[_Part]) -> Iterator[tuple[list[float], list[float]]]:
    """Every row of logits and every column of them, with their probabilities."""
    for part in parts:
        answered = [result for result in part.answer["results"] if "error" not in result]
        yield from ((result["logits"], result["probabilities"]) for result in answered)
        if answered:
            for column, probabilities in enumerate(part.answer["text_probabilities"]):
                yield [result["logits"][column] for result in answered], probabilities


def _softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits, default=0.0)
    powers = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _sigmoids(logits: Sequence[float]) -> list[float]:
    # The power of a negative number alone, which cannot overflow.
    powers = [math.exp(-abs(logit)) for logit in logits]
    return [(1 if logit >= 0 else power) / (1 + power) for logit, power in zip(logits, powers, strict=True)]


def _moved(result: Json, by: int) -> Json:
    """A result with its place among all."""
    moved = {**result, "index": result["index"] + by}
    if "error" in moved:
        moved["error"] = {**moved["error"], "index": moved["index"]}
    return moved

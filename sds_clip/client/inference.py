"""Match, classify and embed lists of any length, as plans of as many requests as the service needs.

A list that fits into one request gets the service's own response.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sds_clip.client.calls import Call, Plan, given, strings
from sds_clip.client.errors import APIError, ClientError
from sds_clip.client.images import ImageLike, encoded, listed
from sds_clip.client.joining import Json, Part, joined, joined_match, of_each_model, of_same_models

# The service's default limits per request. If a service has lower ones, its error leads to smaller requests.
MAX_IMAGES = 64
MAX_TEXTS = 2048
_TOO_MUCH = ("too_many_images", "too_many_texts", "body_too_large")
# Responses of two versions are never joined. If the model is swapped between them, all requests are repeated.
_TRIES = 3
_NAMED = {"labels": ("imagenet",), "templates": ("simple", "openai")}


def match(images: Iterable[ImageLike], texts: Iterable[str], options: Mapping[str, Any]) -> Plan:
    """POST /match. Probabilities of a joined answer are recomputed over all texts and all images."""
    pictures = listed(images)
    listed_texts = strings("texts", texts)
    body = given(options)
    parts = yield from _answers(_route("/match", body), pictures, listed_texts, body)
    if len(parts) == 1:
        return parts[0].answer
    return of_each_model(partial(joined_match, listed_texts), parts)


def classify(images: Iterable[ImageLike], labels: Iterable[str] | str, options: Mapping[str, Any]) -> Plan:
    """POST /classify. The labels are not divided over several requests, because each is compared with all others."""
    body = given(options) | {"labels": _strings_or_name("labels", labels)}
    if "templates" in body:
        body["templates"] = _strings_or_name("templates", body["templates"])
    pictures = listed(images)
    return of_each_model(joined, (yield from _answers(_route("/classify", body), pictures, None, body)))


def embed(
    images: Iterable[ImageLike] | None,
    texts: Iterable[str] | None,
    options: Mapping[str, Any],
) -> Plan:
    pictures = None if images is None else listed(images)
    listed_texts = None if texts is None else strings("texts", texts)
    return joined((yield from _answers("/embed", pictures, listed_texts, given(options))))


def _route(path: str, body: Mapping[str, Any]) -> str:
    return f"{path}/compare" if "models" in body else path


def _strings_or_name(name: str, given: Iterable[str] | str) -> list[str] | str:
    return given if isinstance(given, str) and given in _NAMED[name] else strings(name, given)


def _answers(path: str, images: list[ImageLike] | None, texts: list[str] | None, body: Json) -> Plan:
    """Return the responses, all of one model version, ordered by image and then by text."""
    for _ in range(_TRIES):
        parts = yield from _ask(path, images, texts, body)
        if of_same_models(parts):
            return parts
    raise ClientError(
        "The service swapped the model several times while the requests of this call were sent. Call again, or name "
        "a version as model.",
        code="model_swapped",
        param="model",
    )


def _ask(path: str, images: list[ImageLike] | None, texts: list[str] | None, body: Json) -> Plan:
    """Send requests of the maximum size, halved whenever the service says they are too large."""
    size = {"images": MAX_IMAGES, "texts": MAX_TEXTS}
    parts: list[Part] = []
    waiting = [(range(len(images or ())), range(len(texts or ())))]
    while waiting:
        rows, columns = waiting.pop()
        if len(rows) > size["images"]:
            waiting += [(rows[size["images"] :], columns), (rows[: size["images"]], columns)]
            continue
        if len(columns) > size["texts"]:
            waiting += [(rows, columns[size["texts"] :]), (rows, columns[: size["texts"]])]
            continue
        fields = _fields(images, rows, texts, columns)
        try:
            answer = yield Call("POST", path, json=fields | body)
            parts.append(Part(rows.start, columns.start, answer))
        except APIError as error:
            name = "texts" if error.code == "too_many_texts" or len(rows) < 2 else "images"
            count = len(columns) if name == "texts" else len(rows)
            if error.code not in _TOO_MUCH or count < 2:
                if error.index is not None:
                    # The index counts within one request; the caller's lists are longer.
                    error.index += {"images": rows.start, "texts": columns.start}.get(str(error.param), 0)
                raise
            size[name] = count // 2
            waiting.append((rows, columns))
    return parts


def _fields(images: list[ImageLike] | None, rows: range, texts: list[str] | None, columns: range) -> Json:
    fields: Json = {}
    if images is not None:
        fields["images"] = [encoded(images[row], row) for row in rows]
    if texts is not None:
        fields["texts"] = [texts[column] for column in columns]
    return fields

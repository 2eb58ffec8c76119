"""Every request, built without sending it."""

import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

MAX_PAGE = 100  # the service's limit for one page


@dataclass(frozen=True)
class Call:
    """A request with a JSON body or none."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """Whether the call is idempotent."""

    @property
    def wait_s(self) -> float:
        """How long the service may wait before it answers."""
        return float((self.json or {}).get("wait_s", 0))


def submit(kind: Literal["finetune", "evaluate"], fields: Mapping[str, Any]) -> Call:
    """POST /finetune or /evaluate. Idempotent by its key."""
    return Call("POST", f"/{kind}", json=given(fields), headers={"Idempotency-Key": uuid.uuid4().hex})


def post(*path: str, json: Mapping[str, Any] | None = None, repeatable: bool = True) -> Call:
    return Call("POST", below(*path), json=None if json is None else given(json), repeatable=repeatable)


@dataclass(frozen=True)
class Ended:
    """What a plan has returned."""

    result: Any


Plan: TypeAlias = Generator[Call, Any, Any]
"""Several calls: it yields each, is sent its answer or its ClientError, and returns what all together have found."""


def advance(step: Callable[[], Call]) -> Call | Ended:
    """Take a step of a plan: to its next call, or to its end."""
    try:
        return step()
    except StopIteration as ended:  # which no coroutine may raise
        return Ended(ended.value)


def items(path: str, limit: int, *, key: str = "id", **filters: Any) -> Plan:
    """The first `limit` items of a list, page by page. `key` names the field that pages go by."""
    found: list[Any] = []
    while len(found) < limit:
        after = found[-1][key] if found else None
        answer = yield page(path, after=after, limit=limit - len(found), **filters)
        found += answer["data"]
        if not answer["has_more"]:
            break
    return found


def metrics(job_id: str) -> Plan:
    """All metrics of a job, in pages that are as long as the service makes them."""
    found: list[Any] = []
    while True:
        answer = yield get("jobs", job_id, "metrics", after=found[-1]["step"] if found else None)
        found += answer["data"]
        if not answer["has_more"]:
            return found


def page(path: str, *, after: str | int | None, limit: int = MAX_PAGE, **filters: Any) -> Call:
    return Call("GET", path, params=given({"after": after, "limit": min(limit, MAX_PAGE), **filters}))


def get(*path: str, **params: Any) -> Call:
    return Call("GET", below(*path), params=given(params))


def picture(path: str, max_side: int | None) -> Call:
    """GET a path that the service gave. Raises ValueError for anything else, such as a URL."""
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{path!r} is not the path of a picture, such as /datasets/ID/samples/0/images/0.")
    return Call("GET", path, params=given({"max_side": max_side}))


def delete(*path: str) -> Call:
    """Delete a resource. Idempotent."""
    return Call("DELETE", below(*path))


def promote(version: str, fields: Mapping[str, Any]) -> Call:
    """POST /models/{version}/promote. Idempotent unless it compares generations."""
    body = given(fields)
    # A repeated call would find the generation of the first one and fail.
    repeatable = "expected_generation" not in body
    return Call("POST", below("models", version, "promote"), json=body, repeatable=repeatable)


def below(*parts: str) -> str:
    """Join path segments, percent-encoded."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drop fields that are None, so that the service's defaults apply."""
    return {name: value for name, value in fields.items() if value is not None}


def strings(name: str, given: Iterable[str]) -> list[str]:
    """Check a list of strings. Raises TypeError for a single string, or an item that is not a string."""
    if isinstance(given, str | bytes):
        raise TypeError(
            f"{name} must be a list of strings, but it is one string; put it into a list: [{given!r}]."
        )
    found = list(given)
    for index, each in enumerate(found):
        if not isinstance(each, str):
            raise TypeError(f"{name}[{index}] must be a string, but it is a {type(each).__name__}.")
    return found

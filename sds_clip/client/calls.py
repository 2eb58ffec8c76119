"""Every request, built without sending it."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

MAX_PAGE = 100


@dataclass(frozen=True)
class Call:
    """A request with a JSON body or none."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """Whether a second one has no second effect."""


def submit(kind: Literal["finetune", "evaluate"], fields: Mapping[str, Any]) -> Call:
    """POST /finetune or /evaluate; sent twice it makes one job."""
    return Call("POST", f"/{kind}", json=given(fields), headers={"Idempotency-Key": uuid.uuid4().hex})


def dry_run(kind: Literal["finetune", "evaluate"], fields: Mapping[str, Any]) -> Call:
    """The same without making a job."""
    return Call("POST", f"/{kind}", json={**given(fields), "dry_run": True})


def page(path: str, *, after: str | int | None, limit: int = MAX_PAGE, **filters: Any) -> Call:
    """A page of a list."""
    return Call("GET", path, params=given({"after": after, "limit": min(limit, MAX_PAGE), **filters}))


def get(*path: str, **params: Any) -> Call:
    """Something by its path."""
    return Call("GET", below(*path), params=given(params))


def register(fields: Mapping[str, Any]) -> Call:
    """POST /datasets for data that lie on the server; a second one makes a second data set."""
    return Call("POST", "/datasets", json=given(fields), repeatable=False)


Action = Literal["cancel", "pause", "resume", "retry"]


def act(job_id: str, action: Action) -> Call:
    """What is asked of a job; again is no error."""
    return Call("POST", below("jobs", job_id, action))


def delete(*path: str) -> Call:
    """Delete something; again is no error."""
    return Call("DELETE", below(*path))


def promote(version: str, fields: Mapping[str, Any]) -> Call:
    """POST /models/{version}/promote; a version that the alias points at already is left there."""
    body = given(fields)
    path = below("models", version, "promote")
    # A second one that compares generations would find the first one's.
    return Call("POST", path, json=body, repeatable="expected_generation" not in body)


def rollback(alias: str, fields: Mapping[str, Any]) -> Call:
    """POST /models/{alias}/rollback; a second one would lead further back or forth."""
    return Call("POST", below("models", alias, "rollback"), json=given(fields), repeatable=False)


def below(*parts: str) -> str:
    """A path of these parts, whatever characters they have."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None; the service has the defaults."""
    return {name: value for name, value in fields.items() if value is not None}


def strings(name: str, given: Iterable[str]) -> list[str]:
    """A list of strings. Raises TypeError for one string in its place, and for an item that is not a string."""
    if isinstance(given, str | bytes):
        raise TypeError(
            f"{name} must be a list of strings, and is one string: put it into a list, [{given!r}]."
        )
    found = list(given)
    for index, each in enumerate(found):
        if not isinstance(each, str):
            raise TypeError(f"{name}[{index}] must be a string, and is of the type {type(each).__name__}.")
    return found

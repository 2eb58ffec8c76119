"""Request bodies: JSON and multipart/form-data, both read into the same schema."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, get_args

from fastapi import Request
from pydantic import BaseModel, ValidationError

from sds_clip.app.content_type import JSON, MULTIPART, media_type
from sds_clip.app.errors import (
    BodyTooLarge,
    InvalidRequest,
    MalformedBody,
    ServiceError,
    UnsupportedMediaType,
)
from sds_clip.app.form_stream import FormStream
from sds_clip.app.request_limits import Limits
from sds_clip.models.choices import LabelSet, TemplateSet
from sds_clip.models.validation import explain, json_problem, problems

Schema = TypeVar("Schema", bound=BaseModel)

LISTS = ("images", "texts", "labels", "templates", "models")
# Fields of LISTS that may also be one name of a built-in set; sent once, such a value stays a string.
NAMED_SETS = {"labels": get_args(LabelSet), "templates": get_args(TemplateSet)}
MAX_FIELDS = 8192
MAX_FIELD_BYTES = 2**20
"""Of a field that is no file."""
FORM_PART_BYTES = 16 * 2**10
"""How much of a form is parsed at once. That much of the smallest fields takes some 4 ms."""
PARSE_S = 0.002
"""How long a form is parsed before others are served for as long. They need steps of the event loop, and threads that
cannot run meanwhile."""
MAX_ERRORS = 20
"""How many wrong fields of one request are told."""

# A pydantic location mixes field names and indices with names of union branches, which callers do not know.
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_BRANCHES = frozenset(["str", "bytes", "int", "float", "bool", "none", "dict", "list", "tuple"])
_SOURCES = frozenset(["body", "query", "path", "header", "cookie"])
_CHARSET = re.compile(r";\s*charset=\"?([^\";]*)\"?", re.IGNORECASE)


def reads(
    schema: type[Schema], *, form: bool = True, max_bytes: int | None = None
) -> Callable[[Request], Awaitable[Schema]]:
    """A dependency that reads the body as `schema`. Without `form`, it accepts only JSON. OpenAPI describes it.

    `max_bytes` is for callers without a key, and limits JSON to less than the settings do.

    Raises: MalformedBody, UnsupportedMediaType, InvalidRequest, BodyTooLarge.
    """

    async def read(request: Request) -> Schema:
        given = media_type(request.headers)
        try:
            if given == JSON:
                sent = await (request.body() if max_bytes is None else _short_body(request, max_bytes))
                if not sent or sent.isspace():
                    raise MalformedBody("The body is empty; send a JSON object.")
                if max_bytes is None:  # a short body cannot hold much
                    limits: Limits = request.app.state.limits
                    await asyncio.sleep(0)  # others are served between joining, checking and parsing 32 MiB
                    limits.json(schema.model_fields).check(sent)
                    await asyncio.sleep(0)
                return schema.model_validate_json(sent, strict=True)
            if given == MULTIPART and form:
                return schema.model_validate(await _fields(request))
        except ValidationError as error:
            raise translated(error, schema) from None
        accepted = f"{JSON} or {MULTIPART}" if form else JSON
        raise UnsupportedMediaType(
            f"Send the body as {accepted}, and name that type in the Content-Type header."
        )

    read.reads = schema, form  # type: ignore[attr-defined]
    return read


async def _short_body(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise BodyTooLarge(f"The body is too large; at most {max_bytes} bytes are allowed.")
    return bytes(body)


async def _in_parts(body: bytes) -> AsyncGenerator[bytes, None]:
    """The body, so that other requests are served while thousands of fields are parsed."""
    began = time.monotonic()
    for start in range(0, len(body), FORM_PART_BYTES):
        yield body[start : start + FORM_PART_BYTES]
        if time.monotonic() - began > PARSE_S:
            await asyncio.sleep(PARSE_S)
            began = time.monotonic()


async def _fields(request: Request) -> dict[str, Any]:
    """The fields of a form. Files become bytes, and a list field may be repeated."""
    content_type = request.headers["content-type"]
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
        raise MalformedBody("The form's charset must be UTF-8.")
    values: dict[str, list[str | bytes]] = {}
    sent = 0
    async with aclosing(_in_parts(await request.body())) as parts:
        async for field in FormStream(content_type, parts):
            sent += 1
            if sent > MAX_FIELDS:
                raise MalformedBody(f"The form has more than {MAX_FIELDS} fields; send several requests.")
            content = await (field.content() if field.is_file else field.text(MAX_FIELD_BYTES))
            values.setdefault(field.name, []).append(content)
    fields: dict[str, Any] = {}
    for name, given in values.items():
        if name in LISTS and not (len(given) == 1 and given[0] in NAMED_SETS.get(name, ())):
            _check_items(name, given)
            fields[name] = given
        elif len(given) > 1:
            raise MalformedBody(
                f"The field {name[:64]} appears {len(given)} times; send it once.", param=name[:64]
            )
        else:
            fields[name] = given[0]
    return fields


def _check_items(name: str, values: Sequence[str | bytes]) -> None:
    """Refuse several items in one value, such as `["cat", "dog"]`. A comma only counts in a label that is alone."""
    for index, value in enumerate(values):
        if not isinstance(value, str):
            continue
        text = value.strip()
        is_list = text.startswith("[") and text.endswith("]") and text[1:-1].strip()[:1] in ("", '"', "'")
        has_comma = not is_list and name == "labels" and len(values) == 1 and "," in text
        if is_list or has_comma:
            raise InvalidRequest(
                f"In a form, each of the {name} is a field of its own; repeat the field, as in -F {name}=FIRST "
                f"-F {name}=SECOND.{' Send JSON if a label itself has a comma.' * has_comma}",
                param=name,
                index=index,
            )


def translated(error: ValidationError, schema: type[BaseModel]) -> ServiceError:
    """What a validation error says, without the caller's input. JSON that does not parse becomes MalformedBody."""
    details = problems(error)
    if details[0]["type"] == "json_invalid":
        return MalformedBody(f"The body is not valid JSON {json_problem(details[0])}.")
    return invalid_request(details, schema)


def invalid_request(
    details: Iterable[Mapping[str, Any]], schema: type[BaseModel] | None = None
) -> InvalidRequest:
    """Pydantic's error details as this API's error: the first one, which has those of other fields beside it."""
    found = dict[tuple[str | None, int | None], InvalidRequest]()
    for detail in details:
        field_path = _told_field(detail)
        if field_path not in found:
            param, index = field_path
            found[field_path] = InvalidRequest(explain(detail, schema), param=param, index=index)
        if len(found) == MAX_ERRORS:
            break
    first, *others = found.values()
    first.others = others
    return first


def _told_field(detail: Mapping[str, Any]) -> tuple[str | None, int | None]:
    if detail["type"] == "extra_forbidden":  # its name is the caller's: it may look like anything
        return _within(*_field_of(detail["loc"][:-1]), str(detail["loc"][-1])[:64]), None
    return _field_of(detail["loc"])


def _field_of(location: Sequence[str | int]) -> tuple[str | None, int | None]:
    """The field, and the index if a list's item itself is wrong.

    ("body", "images", 3, "str") is images, 3, and ("images", 3, "UrlImage", "url") is images[3].url.
    """
    if location and location[0] == "header":  # only headers that the route declares are checked
        return str(location[1]), None
    field_path: str | None = None
    index: int | None = None
    for position, part in enumerate(location):
        if isinstance(part, int):
            field_path, index = (
                (field_path, part) if index is None else (f"{field_path or ''}[{index}]", part)
            )
        elif _FIELD.fullmatch(part) and part not in _BRANCHES and not (position == 0 and part in _SOURCES):
            field_path, index = _within(field_path, index, part), None
    return field_path, index


def _within(field_path: str | None, index: int | None, field: str) -> str:
    item = "" if index is None else f"[{index}]"
    return f"{field_path or ''}{item}.{field}" if field_path or item else field

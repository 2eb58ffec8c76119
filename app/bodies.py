"""Request bodies: JSON or multipart/form-data, read into the same schema."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from app.errors import MalformedBody, UnsupportedMediaType

Schema = TypeVar("Schema", bound=BaseModel)

JSON = "application/json"
MULTIPART = "multipart/form-data"
LISTS = ("images", "texts", "labels", "templates")
NAMED_SETS = {"labels": ("imagenet",), "templates": ("simple", "openai")}
MAX_FIELDS = 16_384


def reads(schema: type[Schema]) -> Callable[[Request], Awaitable[Schema]]:
    """A dependency that reads the body as `schema`.

    Raises: MalformedBody, UnsupportedMediaType, RequestValidationError (rendered as InvalidRequest).
    """

    async def read(request: Request) -> Schema:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if media_type == JSON:
                return schema.model_validate_json(await request.body())
            if media_type == MULTIPART:
                return schema.model_validate(await _form(request))
        except (UnicodeError, LookupError):
            raise MalformedBody("The form's text cannot be read; send it as UTF-8.") from None
        except ValidationError as error:
            raise _translated(error) from None
        raise UnsupportedMediaType(f"Send the body as {JSON} or {MULTIPART}, and say so in Content-Type.")

    return read


async def _form(request: Request) -> dict[str, Any]:
    """The fields of a form; files become bytes, and a list field may be repeated."""
    fields: dict[str, Any] = {}
    async with request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS) as form:
        for name in form:
            values = [
                await value.read() if isinstance(value, UploadFile) else value for value in form.getlist(name)
            ]
            single = name not in LISTS or (len(values) == 1 and values[0] in NAMED_SETS.get(name, ()))
            if single and len(values) > 1:
                raise MalformedBody(f"The field {name} stands {len(values)} times; give it once.", param=name)
            fields[name] = values[0] if single else values
    return fields


def _translated(error: ValidationError) -> Exception:
    """Validation errors without what the caller sent; JSON that does not parse is a malformed body."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return MalformedBody(f"The body is not JSON: {errors[0]['msg'].removeprefix('Invalid JSON: ')}.")
    return RequestValidationError(errors)

"""Describes in OpenAPI what FastAPI cannot see: bodies in two media types, and the error body."""

import json
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.models import RequestBody
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sds_clip.app.content_type import JSON, MULTIPART
from sds_clip.app.edge import auth
from sds_clip.app.edge.session import COOKIE
from sds_clip.app.errors import ServiceError
from sds_clip.app.joined_calls import JoinedCalls
from sds_clip.app.schemas.common import ErrorBody
from sds_clip.app.threads import in_own_thread

REFERENCE = "#/components/schemas/{model}"
REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Your own id of the request, for the logs and the response: 1 to 128 letters, digits, dots, dashes "
    "and underscores. Any other value is replaced.",
}
"""The header that every route takes (`sds_clip.app.edge.middleware.RequestId`)."""
BEARER = {"type": "http", "scheme": "bearer"}
SESSION = {
    "type": "apiKey",
    "in": "cookie",
    "name": COOKIE,
    "description": "The cookie that POST /session sets for a browser. Every request but GET, HEAD and OPTIONS also "
    f"needs the session's CSRF token in the header {auth.CSRF_HEADER}. Pages of other origins cannot use a session. If "
    "a request has an Authorization header, its cookie is ignored.",
}

_referred: dict[str, type[BaseModel]] = {}
"""The models to which descriptions of bodies refer. FastAPI does not see them."""


def describe_body(schema: type[BaseModel]) -> dict[str, Any]:
    """The request body of an endpoint that reads `schema`."""
    json_schema = schema.model_json_schema(ref_template=REFERENCE)
    examples = _examples(json_schema)
    form: dict[str, Any] = {
        key: json_schema[key]
        for key in ("type", "required", "additionalProperties", "allOf")
        if key in json_schema
    }
    form["properties"] = {name: _in_a_form(each) for name, each in json_schema["properties"].items()}
    form["properties"]["images"] = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "The image files, or data URIs as in the example. Repeat the field for each image.",
    }
    content = {
        JSON: {"schema": _reference(schema), "examples": examples},
        MULTIPART: {"schema": form, "examples": examples},
    }
    return {"requestBody": {"required": True, "content": content}}


def _in_a_form(described: dict[str, Any]) -> dict[str, Any]:
    """The description of a field, which says how a form has a list."""
    if all(choice.get("type") != "array" for choice in (described, *described.get("anyOf", ()))):
        return described
    told = f"{described.get('description', '')} Repeat the field for each item."
    return {**described, "description": told.strip()}


def describe_json(schema: type[BaseModel]) -> dict[str, Any]:
    content = {
        "schema": _reference(schema),
        "examples": _examples(schema.model_json_schema(ref_template=REFERENCE)),
    }
    return {"requestBody": {"required": True, "content": {JSON: content}}}


def describe_upload(
    schema: type[BaseModel], fields: type[BaseModel], files: dict[str, Any]
) -> dict[str, Any]:
    """The request body of an endpoint that reads `schema` as JSON, or a form of `fields` and files."""
    described = describe_json(schema)
    form: dict[str, Any] = {**fields.model_json_schema(ref_template=REFERENCE)}
    form["properties"] = {**form["properties"], **files}
    described["requestBody"]["content"][MULTIPART] = {"schema": form}
    return described


def describe_errors(
    *errors: type[ServiceError], body: type[BaseModel] = ErrorBody
) -> dict[int | str, dict[str, Any]]:
    """The error responses of an endpoint, for a route's `responses`.

    The description is the codes of each error class and the first line of its docstring. The body is only referred to:
    FastAPI would make a validator of it for every status of every route, again for each app.
    """
    by_status: dict[int, list[str]] = {}
    for error in errors:
        codes = ", ".join(f"`{code}`" for code in error.codes or (error.code,))
        by_status.setdefault(error.status, []).append(f"{codes}: {(error.__doc__ or '').splitlines()[0]}")
    return {
        status: {
            "description": " ".join(reasons),
            "content": {JSON: {"schema": _reference(body)}},
        }
        for status, reasons in sorted(by_status.items())
    }


def install_openapi(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            for path, methods, calls in auth.dependencies(app):
                access = auth.access_of(calls)
                operations = description["paths"].get(path.replace(":path}", "}"), {})
                for method in methods & {each.upper() for each in operations}:
                    operation = operations[method.lower()]
                    operation.setdefault("parameters", []).append(REQUEST_ID)
                    # {} because without a keys file no key is needed.
                    operation["security"] = [
                        {},
                        *({scheme: [scope]} for scheme in ("key", "session") for scope in access or ()),
                    ]
                    for schema, has_form in (call.reads for call in calls if hasattr(call, "reads")):
                        body = (describe_body if has_form else describe_json)(schema)["requestBody"]
                        operation["requestBody"] = jsonable_encoder(  # as `get_openapi` writes it
                            RequestBody.model_validate(body), by_alias=True, exclude_none=True
                        )
            _, definitions = models_json_schema(
                [(model, "validation") for model in _referred.values()], ref_template=REFERENCE
            )
            schemas = description.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions.get("$defs", {}))
            description["components"]["securitySchemes"] = {"key": BEARER, "session": SESSION}
            app.openapi_schema = description
        return app.openapi_schema

    written = b""
    calls = JoinedCalls[str, bytes]()

    async def description() -> bytes:
        """What GET /openapi.json answers. It is written once, in a thread, since that takes a second."""
        nonlocal written
        if not written:
            write = partial(
                in_own_thread,
                lambda: json.dumps(app.openapi(), separators=(",", ":")).encode(),
                "describe API",
            )
            written = await calls.run("description", write, "describe API")
        return written

    app.openapi = openapi  # type: ignore[method-assign]
    app.state.description = description


def _reference(schema: type[BaseModel]) -> dict[str, str]:
    _referred[schema.__name__] = schema
    return {"$ref": REFERENCE.format(model=schema.__name__)}


def _examples(json_schema: dict[str, Any]) -> dict[str, Any]:
    return {
        f"example {number}": {"value": example}
        for number, example in enumerate(json_schema.get("examples", []), start=1)
    }

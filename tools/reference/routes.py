"""The reference of the HTTP API: every route with its fields, examples, scope and errors, from OpenAPI."""

import json
from collections.abc import Iterator
from typing import Any

from sds_clip.app.main import api
from tools.reference.markdown import Schema, fields, kind, table

PAGE = """\
# HTTP API

The page `/docs` of a running service shows the same and can call it. `GET /openapi.json` is the document that both
are made from.

With a keys file, send an API key of the scope that is named, as `Authorization: Bearer KEY`. Without one, the service
answers only programs on its own machine, and needs no key. [Error codes](errors.md) has the body of an error and all
codes; an answer may carry a more specific code than the one named here for its status.

{routes}

## Schemas

{schemas}
"""


def page() -> str:
    document = api().openapi()
    schemas = document["components"]["schemas"]
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text = "\n\n".join(_route(method.upper(), path, operation, schemas))
            by_tag.setdefault(operation["tags"][0], []).append(text)
    routes = [f"## {tag.capitalize()}\n\n" + "\n\n".join(found) for tag, found in by_tag.items()]
    named = [f"### {name}\n\n{_described(schema)}" for name, schema in sorted(schemas.items())]
    return PAGE.format(routes="\n\n".join(routes), schemas="\n\n".join(named))


def _route(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Schema]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield operation.get("description", operation["summary"])
    yield f"Scope: {_scope(operation)}"
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{each['name']}`", each["in"], kind(each["schema"]), each.get("description", ""))
            for each in parameters
        ]
        yield "**Parameters**"
        yield table(("name", "in", "type", "meaning"), rows)
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"**Body** (`{media_type}`)"
        yield _body(content["schema"], schemas)
        for example in content.get("examples", {}).values():
            yield _json(example["value"])
    errors = []
    for status, response in operation["responses"].items():
        if status >= "4":
            errors.append((status, response["description"]))
            continue
        yield f"**Answer {status}**: {response['description']}"
        for content in response.get("content", {}).values():
            yield _body(content.get("schema", {}), schemas)
            for example in _resolved(content.get("schema", {}), schemas).get("examples", [])[:1]:
                yield _json(example)
    yield "**Errors**"
    yield table(("status", "meaning"), sorted(errors))


def _scope(operation: dict[str, Any]) -> str:
    scopes = [scope for need in operation["security"] for each in need.values() for scope in each]
    return " or ".join(f"`{scope}`" for scope in scopes) or "none; anybody may call it"


def _body(schema: Schema, schemas: dict[str, Schema]) -> str:
    """The fields of an object, or the name of another type."""
    whole = _resolved(schema, schemas)
    return fields(whole) if "properties" in whole else kind(schema)


def _resolved(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _described(schema: Schema) -> str:
    about = schema.get("description", "")
    return f"{about}\n\n{fields(schema) if 'properties' in schema else kind(schema)}".lstrip()


def _json(value: object) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"

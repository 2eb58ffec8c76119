"""Writes sds_clip/client/schemas.py, the types of what the client sends and gets, from the OpenAPI document."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

HEADER = '''"""What the service takes and answers, as types. /docs of the service describes every field.

`...Options` and `...Filters` are the keyword arguments of a method; what is None is not sent. The other types are the
schemas of the service. Of an image that could not be read (`on_error="skip"`), there are `index` and `error` alone.
"""

# Generated from the service's schemas by `make client`.
# ruff: noqa: D101, E501, E702
# fmt: off
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, final


'''
WIDTH = 110
OPTIONS = {
    "MatchOptions": ("POST /match", "images texts"),
    "MatchComparisonOptions": ("POST /match/compare", "images texts"),
    "ClassifyOptions": ("POST /classify", "images labels"),
    "ClassifyComparisonOptions": ("POST /classify/compare", "images labels"),
    "EmbedOptions": ("POST /embed", "images texts"),
    "PromoteOptions": ("POST /models/{version}/promote", "alias reason dry_run"),
    "RollbackOptions": ("POST /models/{alias}/rollback", "reason"),
    "RemoveOptions": ("POST /models/{alias}/remove", "reason"),
    "RegisterOptions": ("POST /datasets", "source format name"),
    "FinetuneOptions": ("POST /finetune", "training_data dry_run"),
    "EvaluateOptions": ("POST /evaluate", "benchmark data dry_run"),
    "ModelFilters": ("GET /models", "after limit"),
    "DatasetFilters": ("GET /datasets", "after limit"),
    "JobFilters": ("GET /jobs", "after limit"),
    "ItemFilters": ("GET /jobs/{job_id}/items", "after limit with"),
    "CurveOptions": ("GET /jobs/{job_id}/curves", "names"),
}
"""The keyword arguments of methods: an operation, and those of its fields for which the method has own parameters."""
WITHOUT_NULL = ("MatchResponse", "MatchComparison", "ClassifyResponse", "ClassifyComparison", "EmbedResponse")
"""Answers that leave out what is null. All others have all their fields (app/routes/inference.py)."""
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
ITEM_ERROR = "#/components/schemas/ItemError"


def write(document: Mapping[str, Any], used: Iterable[str]) -> str:
    """The module with `OPTIONS`, the schemas in `used`, and all that these are made of."""
    types = _Types(document)
    for name, (operation, own) in OPTIONS.items():
        types.add_options(name, _fields(document, operation), own.split())
    answers = sorted({*used} - OPTIONS.keys())
    for name in (*WITHOUT_NULL, *answers):
        types.named(name, whole=name not in WITHOUT_NULL)
    found = (f"@final\n{text}" if name in types.final else text for name, text in types.written.items())
    return HEADER + "\n".join(found) + "\n"


def _fields(document: Mapping[str, Any], operation: str) -> dict[str, Any]:
    """The schema of a request: of its JSON body, or of its query."""
    method, path = operation.split()
    described = document["paths"][path][method.lower()]
    if method == "POST":
        reference = described["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema: dict[str, Any] = document["components"]["schemas"][_name(reference)]
        return schema
    query = [each for each in described["parameters"] if each["in"] == "query"]
    return {"properties": {each["name"]: each["schema"] for each in query}}


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


class _Types:
    """Statements by the names that they define, in an order in which each stands below what it is made of."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.written: dict[str, str] = {}
        self.final: set[str] = set()
        """Members of unions: only of final ones does a type checker know which it is, once it is asked for a field."""
        self._schemas = document["components"]["schemas"]

    def add_options(self, name: str, schema: Mapping[str, Any], own: Collection[str]) -> None:
        required = schema.get("required", ())
        asked = {field: each for field, each in schema["properties"].items() if field not in own}
        types = {field: self._type(each, asked=True) for field, each in asked.items()}
        given = {
            field: text if field in required or text.endswith(" | None") else f"{text} | None"
            for field, text in types.items()
        }
        self.written[name] = _class(name, given, required)

    def named(self, name: str, **how: bool) -> str:
        if name in self.written:
            return name
        schema = self._schemas[name]
        if "properties" in schema:
            fields = {field: self._type(each, **how) for field, each in schema["properties"].items()}
            self.written[name] = _class(
                name, fields, fields if how.get("whole") else schema.get("required", ())
            )
        else:
            self.written[name] = f"{name}: TypeAlias = {self._type(schema, **how)}"
        return name

    def _type(self, schema: Mapping[str, Any], **how: bool) -> str:
        """A schema as an annotation: `asked` is what callers give, `whole` has all its fields."""
        if "$ref" in schema:
            return self.named(_name(schema["$ref"]), **how)
        if choices := [schema["const"]] if "const" in schema else schema.get("enum"):
            return f"Literal[{', '.join(map(json.dumps, choices))}]"
        if union := schema.get("anyOf") or schema.get("oneOf"):
            return self._union(union, **how)
        if schema["type"] == "array":
            item = schema["items"] if "items" in schema else schema["prefixItems"][0]
            return f"{'Sequence' if how.get('asked') else 'list'}[{self._type(item, **how)}]"
        if schema["type"] == "object":
            value = schema.get("additionalProperties", True)
            values = "Any" if value is True else self._type(value, **how)
            return f"{'Mapping' if how.get('asked') else 'dict'}[str, {values}]"
        return SCALARS[schema["type"]]

    def _union(self, choices: list[dict[str, Any]], **how: bool) -> str:
        """An item that may be an error instead gets a field `error`: few callers ask for such items."""
        items = [each for each in choices if each.get("$ref") != ITEM_ERROR]
        if len(items) < len(choices):
            properties = self._schemas[_name(items[0]["$ref"])]["properties"]
            properties["error"] = self._schemas[_name(ITEM_ERROR)]["properties"]["error"]
        names = {_name(each["$ref"]) for each in items if "$ref" in each}
        self.final |= names if len(names) > 1 else set()
        return " | ".join(dict.fromkeys(self._type(each, **how) for each in items))


def _class(name: str, types: Mapping[str, str], required: Collection[str]) -> str:
    """A TypedDict with as many fields in a line as fit."""
    some = any(field in required for field in types)
    fields = [
        f"{field}: {text}" if field in required or not some else f"{field}: NotRequired[{text}]"
        for field, text in types.items()
    ]
    lines = [fields[0]]
    for field in fields[1:]:
        if len(lines[-1]) + len(field) > WIDTH:
            lines.append(field)
        else:
            lines[-1] += f"; {field}"
    head = f"class {name}(TypedDict{'' if some else ', total=False'}):"
    return "\n    ".join([head, *lines])

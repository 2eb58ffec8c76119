"""Writes sds_clip/client/schemas.py, the types of what the client sends and gets, from the OpenAPI document."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
BASES = {
    "ItemScores": ["ItemInfo"],
    "AliasInfo": ["MovedAlias"],
    "VersionInfo": ["VersionDetail"],
    "AnyJobInfo": ["FinetuneJobInfo", "EvaluateJobInfo", "CheckJobInfo"],
}
"""Types and those that extend them. A base that is no schema of the service has what these have in common."""
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
    return HEADER + "\n".join(types.statements()) + "\n"


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
    """What a type has by its name, in an order in which each stands below what it is made of.

    That is the fields of a TypedDict, or what an alias stands for.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.written: dict[str, list[str] | str] = {}
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
        self.written[name] = _declared(given, required)

    def statements(self) -> Iterator[str]:
        bases = {name: base for base, names in BASES.items() for name in names}
        for name, what in self.written.items():
            if isinstance(what, str):
                yield f"{name}: TypeAlias = {what}"
                continue
            inherited: list[str] = []
            if base := bases.get(name):
                family = [self.written[each] for each in (base, *BASES[base]) if each in self.written]
                inherited = [field for field in family[0] if all(field in each for each in family)]
                if family[0] is what:
                    yield _class(base, inherited)
            yield ("@final\n" if name in self.final else "") + _class(
                name, [field for field in what if field not in inherited], base or "TypedDict"
            )

    def named(self, name: str, **how: bool) -> str:
        if name in self.written:
            return name
        schema = self._schemas[name]
        if "properties" in schema:
            fields = {field: self._type(each, **how) for field, each in schema["properties"].items()}
            self.written[name] = _declared(fields, fields if how.get("whole") else schema.get("required", ()))
        else:
            self.written[name] = self._type(schema, **how)
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


def _declared(types: Mapping[str, str], required: Collection[str]) -> list[str]:
    """The fields of a TypedDict. Those that may be missing are marked as such."""
    return [
        f"{field}: {text}" if field in required else f"{field}: NotRequired[{text}]"
        for field, text in types.items()
    ]


def _class(name: str, fields: Sequence[str], base: str = "TypedDict") -> str:
    """A TypedDict with as many fields in a line as fit."""
    if all(": NotRequired[" in field for field in fields):
        fields = [field.replace("NotRequired[", "", 1)[:-1] for field in fields]
        base += ", total=False"
    lines = [fields[0]]
    for field in fields[1:]:
        if len(lines[-1]) + len(field) > WIDTH:
            lines.append(field)
        else:
            lines[-1] += f"; {field}"
    return "\n    ".join([f"class {name}({base}):", *lines])

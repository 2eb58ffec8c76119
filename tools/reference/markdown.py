"""A JSON schema's types and fields in words."""

from functools import partial
from typing import Any

from sds_clip.models.markdown import markdown_table

Schema = dict[str, Any]

_NAMES = {
    "integer": "integer",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "object": "object",
}
_FORMATS = {"path": "path", "binary": "file", "date-time": "time", "ipvanynetwork": "network"}
_LIMITS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters", "maxLength": "at most {} characters", "pattern": "pattern `{}`",
    "minItems": "at least {}", "maxItems": "at most {}", "maxProperties": "at most {}",
}  # fmt: skip


table = partial(markdown_table, text=None)


def fields(schema: Schema) -> str:
    """A table of an object's fields."""
    required = schema.get("required", ())
    rows = [
        (
            f"`{name}`",
            kind(field),
            "required" if name in required else default(field),
            field.get("description", ""),
        )
        for name, field in schema["properties"].items()
    ]
    return table(("field", "type", "default", "meaning"), rows)


def default(schema: Schema) -> str:
    value = schema.get("default")
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{each}`" for each in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def kind(schema: Schema) -> str:
    """A type with its limits. A schema that has a name becomes a link to its heading on the same page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            kinds = [kind(each) for each in schema[union] if each.get("type") != "null"]
            return " or ".join([*kinds, *["null"] * (len(kinds) < len(schema[union]))])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    name = _FORMATS.get(schema.get("format", "")) or _NAMES.get(schema.get("type", ""), "any")
    if schema.get("type") == "array":
        name = f"list of {kind(schema.get('items') or _tuple(schema))}"
    elif isinstance(schema.get("additionalProperties"), dict):
        name = f"object of {kind(schema['additionalProperties'])}"
    return ", ".join([name, *(text.format(schema[key]) for key, text in _LIMITS.items() if key in schema)])


def _tuple(schema: Schema) -> Schema:
    """What may stand in an array each of whose places has its own type."""
    return {"anyOf": schema.get("prefixItems", [{}])}

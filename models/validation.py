"""Pydantic's errors in plain words, for the API, the settings and the command line alike."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

# By pydantic's error type. The fields come from the error's context, which holds the limits of the field.
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "This field is required; add it.",
        "int_type": "The value must be a whole number.",
        "int_parsing": "The value must be a whole number.",
        "int_from_float": "The value must be a whole number.",
        "int_parsing_size": "The number has too many digits.",
        "float_type": "The value must be a number.",
        "float_parsing": "The value must be a number.",
        "finite_number": "The value must be a finite number.",
        "bool_type": "The value must be true or false.",
        "bool_parsing": "The value must be true or false.",
        "string_type": "The value must be a string.",
        "string_unicode": "The text must be valid UTF-8.",
        "list_type": "The value must be a list.",
        "tuple_type": "The value must be a list.",
        "dict_type": "The value must be an object.",
        "model_type": "The value must be an object.",
        "model_attributes_type": "The value must be an object.",
        "literal_error": "The value must be {expected}.",
        "union_tag_invalid": "The field {discriminator} must be one of {expected_tags}.",
        "union_tag_not_found": "The item is of no kind that is accepted here.",
        "enum": "The value must be {expected}.",
        "greater_than": "The value must be greater than {gt}.",
        "greater_than_equal": "The value must be at least {ge}.",
        "less_than": "The value must be less than {lt}.",
        "less_than_equal": "The value must be at most {le}.",
        "string_too_short": "The text is too short. The minimum length is {min_length}.",
        "string_too_long": "The text is too long. The maximum length is {max_length}.",
        "string_pattern_mismatch": "The value must match the pattern {pattern}.",
        "too_short": "The number of items must be at least {min_length}.",
        "too_long": "The number of items must be at most {max_length}.",
    }
)
# By the pattern of a field. A pattern without an entry is shown as it is.
_PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        r"\S": "The text must not be empty or consist of spaces only.",
        r"^[!-~]{1,255}$": "The value must have 1 to 255 visible ASCII characters and no spaces.",
        r"^[0-9a-f]{64}$": "The value must have 64 characters: digits and the letters a to f.",
        r"^[A-Za-z0-9._-]{1,64}$": "The value must have 1 to 64 characters: ASCII letters, digits, dots, underscores "
        "and hyphens.",
        r"^[A-Za-z0-9._-]{0,64}$": "The value must have at most 64 characters: ASCII letters, digits, dots, "
        "underscores and hyphens.",
        r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$": "The value must have 1 to 64 characters: ASCII letters, digits, "
        "underscores and hyphens. It must begin with a letter or a digit.",
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "The value must have 1 to 64 characters: ASCII letters, digits, dots, "
        "underscores and hyphens. It must begin with a letter or a digit.",
    }
)
# By the parser's words. "expected X" becomes "X is expected here", and any other words are shown as they are.
_JSON_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "expected value": "a value is expected here",
        "expected ident": "true, false or null is expected here",
        "key must be a string": "the name of a field must be a string in double quotes",
        "trailing comma": "the comma before this place must be removed",
        "trailing characters": "the JSON has ended before this place",
        "invalid escape": "the character after the backslash cannot be escaped",
        "invalid number": "the number is not valid",
        "number out of range": "the number has too many digits",
        "invalid unicode code point": "the text is not valid UTF-8",
        "unexpected end of hex escape": "the text contains half of a surrogate pair",
        "lone leading surrogate in hex escape": "the text contains half of a surrogate pair",
        "recursion limit exceeded": "the lists and objects are nested too deeply",
    }
)
_ALSO_CALLED: Mapping[str, str] = MappingProxyType({"learning_rate": "lr"})
"""Fields by names that other programs use for them."""
# Whoever sends more errors reads only the first ones.
MAX_COMPARED = 1000
_JSON_PLACE = re.compile(r"(?P<reason>.*) at line (?P<line>\d+) column (?P<column>\d+)", re.DOTALL)


def first_problem(error: ValidationError) -> ErrorDetails:
    """The error to report if there is room for one."""
    return problems(error)[0]


def problems(error: ValidationError) -> list[ErrorDetails]:
    """The errors, those first that say most. They never have the input.

    Unknown fields come first, and missing ones last: these may be there under a misspelt name. If an item of a list is
    of no kind that is accepted, the kind counts that it comes closest to.
    """
    order = {"extra_forbidden": 0, "missing": 2}
    details = error.errors(include_url=False, include_input=False)
    details.sort(key=lambda detail: order.get(detail["type"], 1))
    by_item = dict[tuple[int | str, ...], ErrorDetails]()
    for detail in details[:MAX_COMPARED]:
        item = _item(detail["loc"])
        by_item[item] = max(by_item.get(item, detail), detail, key=lambda each: len(each["loc"]))
    return list(by_item.values())


def _item(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The item of a list in which a location lies, or else the location."""
    for length in range(len(location), 0, -1):
        if isinstance(location[length - 1], int):
            return location[:length]
    return location


def explain(detail: Mapping[str, Any], schema: type[BaseModel] | None = None) -> str:
    """One of pydantic's error details as a sentence that says what is accepted. It never repeats the input.

    With `schema`, the sentence about an unknown field, or about what must be an object, names the fields that there
    are.
    """
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_field(detail["loc"], schema)
    if (
        kind in ("model_type", "model_attributes_type")
        and schema
        and (known := _fields(schema, detail["loc"]))
    ):
        return f"The value must be an object with {', '.join(known)}."
    if kind == "json_invalid":
        return f"The text is not valid JSON {json_problem(detail)}."
    context = detail.get("ctx") or {}
    if kind == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    try:
        return _WORDS[kind].format_map(context)
    except KeyError:
        return str(detail["msg"]).removeprefix("Value error, ").rstrip(".") + "."


def json_problem(detail: Mapping[str, Any]) -> str:
    """Where a text stops being JSON, and why: `at line 1, column 12: it ends too early`."""
    reason = str(detail["msg"]).removeprefix("Invalid JSON: ")
    found = _JSON_PLACE.fullmatch(reason)
    if found is None:
        return f"({reason})"
    return f"at line {found['line']}, column {found['column']}: {_json_reason(found['reason'])}"


def _json_reason(words: str) -> str:
    if words.startswith("EOF"):
        return "it ends too early"
    if words.startswith("control character"):
        return "a control character in a string must be escaped"
    if words.startswith("expected `"):
        return f"{words.removeprefix('expected ')} is expected here"
    return _JSON_REASONS.get(words, words)


def _unknown_field(location: Sequence[int | str], schema: type[BaseModel] | None) -> str:
    known = [] if schema is None else _fields(schema, location[:-1])
    # The time that a comparison takes grows with the square of the length.
    name = str(location[-1])[:64].lower()
    near = [_ALSO_CALLED[name]] if _ALSO_CALLED.get(name) in known else get_close_matches(name, known, n=1)
    if near:
        return f"This field is not known; did you mean {near[0]}?"
    if known:
        return f"This field is not known; the fields here are {', '.join(known)}."
    return "This field is not known; remove it, or correct its name."


def _fields(schema: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The names of the fields at a location, in which a schema's own name chooses a branch of a union."""
    found = [schema]
    for part in location:
        named = [one for one in found if one.__name__ == part]
        fields = [one.model_fields[part] for one in found if part in one.model_fields]
        found = named or (list(_schemas_in(fields[0].annotation)) if fields else found)
    return list(found[0].model_fields) if len(found) == 1 else []


def _schemas_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The schemas in an annotation such as `list[str | UrlImage] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _schemas_in(part)

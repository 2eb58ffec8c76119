"""The reference of the Python client: its public classes, with their signatures and docstrings."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_overloads

import sds_clip.client
from sds_clip.client import AsyncClient, AsyncJob, Client, ClientError, Job, embeddings, schemas, scores

PAGE = """\
# Python client

`from sds_clip import Client, AsyncClient`. [Settings](settings.md#client-and-command-line) has the variables that it
reads, and [Error codes](errors.md#the-client) the codes of its errors. Answers have the fields that the
[HTTP API](http.md#schemas) describes; their types are in `sds_clip.client.schemas`.

{classes}
## Arrays

{arrays}

## Errors

{errors}
"""
WIDTH = 110
CLASSES = (Client, Job, AsyncClient, AsyncJob)


class _Words(str):
    """An annotation that `inspect` prints as it stands in the source, without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def page() -> str:
    errors = [
        f"### {name}\n\n{_text(kind)}\n"
        for name in sds_clip.client.__all__
        if isinstance(kind := getattr(sds_clip.client, name), type) and issubclass(kind, ClientError)
    ]
    arrays = (
        "\n\n".join(
            (f"### {each.__name__}", _code(f"{each.__name__}{_signature(each, object)}"), _text(each))
        )
        for each in (embeddings, scores)
    )
    return PAGE.format(
        classes="\n".join(map(_class, CLASSES)), arrays="\n\n".join(arrays), errors="\n".join(errors)
    )


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties, those of parents too, in the order of the source."""
    found = {name: value for parent in reversed(kind.__mro__[:-1]) for name, value in vars(parent).items()}
    return ((name, each) for name, each in found.items() if not name.startswith("_"))


def _class(kind: Any) -> str:
    parts = [f"## {kind.__name__}", _text(kind), _code(f"{kind.__name__}{_signature(kind.__init__, kind)}")]
    for name, member in members(kind):
        parts.append(f"### {kind.__name__}.{name}")
        if isinstance(member, property):
            parts.append(_code(f"{name}: {_words(inspect.signature(member.fget).return_annotation)}"))  # type: ignore[arg-type]
        else:
            prefix = "async " if inspect.iscoroutinefunction(member) else ""
            ways = get_overloads(member) or [member]
            parts.append(
                _code("\n".join(_wrapped(f"{prefix}{name}{_signature(each, kind)}") for each in ways))
            )
        parts.append(_text(member))
    return "\n\n".join(part for part in parts if part) + "\n"


def _signature(function: Any, kind: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        each.replace(annotation=_words(each.annotation))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
        for each in _expanded(parameter)
    ]
    returned = inspect.Signature.empty if function is kind.__init__ else _words(signature.return_annotation)
    return str(signature.replace(parameters=parameters, return_annotation=returned))


def _expanded(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """`**options: Unpack[...]` as the keyword arguments that it stands for."""
    options = re.fullmatch(r"Unpack\[schemas\.(\w+)\]", str(parameter.annotation))
    if options is None:
        yield parameter
        return
    kind = getattr(schemas, options[1])
    for name, annotation in kind.__annotations__.items():
        text = annotation.__forward_arg__
        required = kind.__total__ and not text.startswith("NotRequired[")
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else None,
            annotation=re.sub(r"^NotRequired\[(.*)\]$", r"\1", text),
        )


def _wrapped(text: str) -> str:
    """A long signature with a parameter in each line."""
    if len(text) <= WIDTH:
        return text
    head, _, rest = text.partition("(")
    parameters, _, returned = rest.rpartition(")")
    lines = re.sub(r", (?=\*|\w+:)", ",\n    ", parameters)
    return f"{head}(\n    {lines},\n){returned}"


def _words(annotation: Any) -> Any:
    return _Words(annotation) if isinstance(annotation, str) else annotation


def _text(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def _code(text: str) -> str:
    return f"```python\n{text}\n```"

"""Refuses undeclared query parameters, so that ?limt=5 cannot silently mean the default limit."""

from collections.abc import Iterator
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.models import Dependant

from sds_clip.app.errors import InvalidRequest, UnknownParameter

_SHOWN_CHARS = 64


async def refuse_unknown_parameters(request: Request) -> None:
    """A dependency of every route. Raises InvalidRequest (unknown_parameter) for what the route does not declare."""
    if not request.query_params:
        return
    declared = list(_declared(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in declared:
            shown = name[:_SHOWN_CHARS]
            near = get_close_matches(shown, declared, n=1)
            if near:
                advice = f"did you mean {near[0]}?"
            elif declared:
                advice = f"its parameters are {', '.join(sorted(declared))}."
            else:
                advice = "it takes none."
            raise UnknownParameter(
                f"This route has no query parameter {shown!r}; {advice}",
                param=shown,
            )
    for name, value in request.query_params.multi_items():
        if "\0" in value:  # PostgreSQL has no text with it
            raise InvalidRequest("The value has a NUL character; send it without.", param=name)


def _declared(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _declared(dependency)

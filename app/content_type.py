"""What a request's Content-Type says: the media type, and the boundary of a form."""

import re

from starlette.datastructures import Headers

from sds_clip.app.errors import MalformedBody

JSON = "application/json"
MULTIPART = "multipart/form-data"

_BOUNDARY = re.compile(r";\s*boundary=(?:\"([^\"]{1,200})\"|([^\";\s]{1,200}))", re.IGNORECASE)


def media_type(headers: Headers) -> str:
    """The media type without its parameters, or an empty string."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def boundary(content_type: str) -> bytes:
    """The boundary of a form. Raises MalformedBody if there is none."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise MalformedBody("The Content-Type header has no boundary. Let your HTTP client set this header.")
    return (found[1] or found[2]).encode("latin-1")

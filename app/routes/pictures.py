"""What the routes of pictures share: their parameters, and a response that a browser shows and does not run."""

from typing import Annotated, Any

from fastapi import Path, Query, Response

from sds_clip.app.pictures import Picture

POLICY = "default-src 'none'; sandbox"
"""For bytes that came from users: whatever they are, they load nothing and have no origin."""
TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file of the picture as it is stored, or a smaller copy or a part of it in PNG or JPEG.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES},
    }
}

Number = Annotated[int, Path(ge=0, lt=2**62, description="A number that counts from 0.")]
AfterIndex = Annotated[
    int,
    Query(ge=-1, lt=2**62, description="Return only what has a higher index."),
]
MaxSide = Annotated[
    int | None,
    Query(
        ge=16,
        le=1024,
        description="The most pixels on the longer side. A picture that has more is made smaller.",
    ),
]


class PictureResponse(Response):
    """A picture. A browser keeps one that cannot change for a year, and others for a minute."""

    def __init__(self, picture: Picture, is_immutable: bool) -> None:
        age = "max-age=31536000, immutable" if is_immutable else "max-age=60"
        headers = {
            "Cache-Control": f"private, {age}",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Vary": "Authorization, Cookie",
        }
        super().__init__(picture.data, media_type=picture.media_type, headers=headers)

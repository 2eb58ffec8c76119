"""Why an image cannot be used. The decoder's own words never reach a caller.

ImageError
├── ImageEmpty          no bytes at all
├── ImageFormat         none of JPEG, PNG, WebP and GIF, by content
├── ImageTruncated      the file ends too early
├── ImageCorrupt        damaged, or a variant that nothing decodes
├── ImageTooLarge       over a limit on bytes, pixels or sides
├── ImageTooNarrow      over the limit on width to height
└── ImageTooComplex     costs far more to decode than its size says
"""

from models.errors import ModelError


class ImageError(ModelError):
    """An image cannot be used; `code` says why, and the message what to do."""

    code = "invalid_image"


class ImageEmpty(ImageError):
    """No bytes at all."""

    code = "image_empty"


class ImageFormat(ImageError):
    """None of the four formats, judged by content and never by name."""

    code = "image_format"


class ImageTruncated(ImageError):
    """The file ends before its image does."""

    code = "image_truncated"

    def __init__(self) -> None:
        super().__init__("The image file ends too early; send the whole file.")


class ImageCorrupt(ImageError):
    """The file breaks its format's rules, or is a variant that nothing decodes."""

    code = "image_corrupt"

    def __init__(self) -> None:
        super().__init__(
            "The image file is damaged or of an unusual kind; save it again as an ordinary JPEG or PNG."
        )


class ImageTooLarge(ImageError):
    """Over a limit on bytes, pixels or sides."""

    code = "image_too_large"


class ImageTooNarrow(ImageError):
    """Over the limit on the ratio of the sides."""

    code = "image_too_narrow"


class ImageTooComplex(ImageError):
    """Made so that decoding costs far more than its size says."""

    code = "image_too_complex"

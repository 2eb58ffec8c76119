"""Items: images and captions that are scored against each other, and how their bytes are read."""

from dataclasses import dataclass

from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.images.decode import ImageError, ImageLimits, decode_image
from sds_clip.models.images.files import ImageFileError, NoImageFile
from sds_clip.models.images.ref import Box, ImageRef


@dataclass(frozen=True, slots=True)
class Item:
    """A case of a benchmark, which defines how its captions relate to its images.

    `target` is the class of a labelled image, and -1 elsewhere.
    """

    id: str
    images: tuple[ImageRef, ...]
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    target: int = -1

    @property
    def files(self) -> tuple[ImageRef, ...]:
        """The images that a report can open, which are in no archive and no table."""
        return tuple(image for image in self.images if image.is_file)


class ImageProblem(EvaluationError):
    """An image cannot be read or decoded, or its box contains no part of it."""

    code = "image_unreadable"


class ImageMissing(ImageProblem):
    """An image file that the data name does not exist."""

    code = "missing_file"


def read_bytes(image: ImageRef) -> bytes:
    """Return the bytes of an image file. Raises ImageMissing or ImageProblem."""
    try:
        return image.read()
    except ImageFileError as error:
        kind = ImageMissing if isinstance(error, NoImageFile) else ImageProblem
        raise kind(f"{image} {error}.") from error


def open_region(image: ImageRef, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """Return the RGB pixels of an image's box, or of the whole image, ignoring EXIF.

    The part of a box beyond the image's edge is black, as in PIL's crop.

    Raises:
        ImageProblem: missing, or not an image that can be decoded.
    """
    data = read_bytes(image)
    try:
        pixels = decode_image(data, limits, orient=False)
    except ImageError as error:
        raise ImageProblem(f"{image}: {error}") from error
    if image.box is None:
        return pixels
    left, top, width, height = image.box
    return pixels.crop((left, top, left + width, top + height))


MAX_CROP = ImageLimits().max_pixels
MAX_CROP_ASPECT = 1000
"""Limit on the ratio of a box's sides. Resizing to the model's shortest side makes a thin strip very long."""


def box_problem(box: Box, width: int, height: int) -> str | None:
    """Return why a box cannot be cropped out of an image of this size, or None.

    A box may reach over the image's edge.
    """
    left, top, box_width, box_height = box
    if box_width < 1 or box_height < 1:
        return f"the box {box} is empty"
    if left >= width or top >= height or left + box_width <= 0 or top + box_height <= 0:
        return f"the box {box} lies outside the image, which is {width} x {height}"
    if box_width > 2 * width or box_height > 2 * height:
        return f"the box {box} is more than twice as large as the image, which is {width} x {height}"
    if box_width * box_height > MAX_CROP:
        return f"the box {box} has more than {MAX_CROP} pixels"
    if max(box_width, box_height) > MAX_CROP_ASPECT * min(box_width, box_height):
        return f"the box {box} is more than {MAX_CROP_ASPECT} times as long as wide"
    return None

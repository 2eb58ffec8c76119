"""Items: images and captions that are scored against each other, and how their bytes are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.results import ImageRegion
from sds_clip.models.images.decode import ImageError, ImageLimits, decode_image
from sds_clip.models.images.files import ImageFileError, NoImageFile, read_image_file
from sds_clip.models.images.table_cells import Cell


@dataclass(frozen=True)
class ArchiveImage(ImageRegion):
    """An image whose bytes are a range of a file: a member of an uncompressed tar archive."""

    offset: int = 0
    size: int = 0
    name: str = ""


@dataclass(frozen=True)
class CellImage(ImageRegion):
    """An image that is a cell of a table."""

    column: str = ""
    row: int = 0


@dataclass(frozen=True)
class Item:
    """A case of a benchmark, which defines how its captions relate to its images.

    `target` is the class of a labelled image, and -1 elsewhere.
    """

    id: str
    images: tuple[ImageRegion, ...]
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    target: int = -1


class ImageProblem(EvaluationError):
    """An image cannot be read or decoded, or its box contains no part of it."""

    code = "image_unreadable"


class ImageMissing(ImageProblem):
    """An image file that the data name does not exist."""

    code = "missing_file"


Place = int | tuple[str, int] | None
"""Where an image is in its file: its offset in an archive, its column and row in a table, or None if it is the file."""


def image_file(region: ImageRegion) -> tuple[Path, Place]:
    """Return what regions of one image have in common: its file, and its place in it."""
    match region:
        case ArchiveImage():
            return region.path, region.offset
        case CellImage():
            return region.path, (region.column, region.row)
        case _:
            return region.path, None


def image_name(region: ImageRegion) -> str:
    match region:
        case ArchiveImage():
            return f"{region.path}/{region.name}"
        case CellImage():
            return f"{region.path}, row {region.row}, `{region.column}`"
        case _:
            return str(region.path)


def read_bytes(region: ImageRegion) -> bytes:
    """Return the bytes of an image file. Raises ImageMissing or ImageProblem."""
    try:
        match region:
            case ArchiveImage():
                return read_image_file(region.path, offset=region.offset, size=region.size)
            case CellImage():
                return Cell(region.path, region.column, region.row).read()
            case _:
                return read_image_file(region.path)
    except ImageFileError as error:
        kind = ImageMissing if isinstance(error, NoImageFile) else ImageProblem
        raise kind(f"{image_name(region)} {error}.") from error


def open_region(region: ImageRegion, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """Return the RGB pixels of an image's box, or of the whole image, ignoring EXIF.

    The part of a box beyond the image's edge is black, as in PIL's crop.

    Raises:
        ImageProblem: missing, or not an image that can be decoded.
    """
    data = read_bytes(region)
    try:
        image = decode_image(data, limits, orient=False)
    except ImageError as error:
        raise ImageProblem(f"{image_name(region)}: {error}") from error
    if region.box is None:
        return image
    left, top, width, height = region.box
    return image.crop((left, top, left + width, top + height))


MAX_CROP = ImageLimits().max_pixels
MAX_CROP_ASPECT = 1000
"""Limit on the ratio of a box's sides. Resizing to the model's shortest side makes a thin strip very long."""


def box_problem(box: tuple[int, int, int, int], width: int, height: int) -> str | None:
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

"""Open training data by its format, which is derived from its path unless it is given."""

from pathlib import Path

from models.choices import DataFormat
from models.data.coco import read_coco
from models.data.folder import read_folder
from models.data.pairs import StoredPairs
from models.data.shards import read_shards
from models.data.table import read_table
from models.errors import DataError


def open_pairs(
    path: str | Path,
    *,
    images: Path | None = None,
    format: DataFormat = "auto",
    image_key: str = "filepath",
    caption_key: str = "title",
    separator: str | None = None,
    confined: bool = False,
) -> StoredPairs:
    """Read the list of samples, without their images.

    `images` is the folder that image names are relative to (COCO and tables; default: the file's own folder).
    `image_key`, `caption_key` and `separator` are a table's columns and separator, as in open_clip's options
    of these names. Without a separator a table has tabs, unless it is a `.csv` whose first line has none.
    `confined` is for untrusted data: an image's name must not lead out of that folder.

    Raises:
        DataError: nothing there, an unknown format, a file that does not follow its format, or a name that
            leads elsewhere.
    """
    kind = _format_of(path) if format == "auto" else format
    pairs: StoredPairs
    if kind == "coco":
        pairs = read_coco(Path(path), images)
    elif kind in ("csv", "tsv"):
        pairs = read_table(
            Path(path), images, image_key=image_key, caption_key=caption_key, separator=separator
        )
    elif kind == "webdataset":
        pairs = read_shards(str(path))
    else:
        pairs = read_folder(Path(path))
    if confined:
        _check_names(pairs, path)
    return pairs


def _check_names(pairs: StoredPairs, path: str | Path) -> None:
    """Refuse names that lead out of the folder. Links are checked when a folder is registered."""
    for sample in pairs.samples:
        name = Path(sample.name)
        if name.is_absolute() or ".." in name.parts:
            raise DataError(
                f"{path}: the image {sample.name!r} is not inside the folder of images; give its path "
                "relative to that folder."
            )


def _format_of(path: str | Path) -> DataFormat:
    by_suffix: dict[str, DataFormat] = {".json": "coco", ".csv": "csv", ".tsv": "tsv", ".tar": "webdataset"}
    suffix = Path(path).suffix.lower()
    if suffix in by_suffix:
        return by_suffix[suffix]
    folder = Path(path)
    if folder.is_dir():
        return "webdataset" if any(folder.glob("[!.]*.tar")) else "folder"
    if not folder.exists():
        raise DataError(f"There is no file or folder {path}; check the path.")
    raise DataError(
        f"The name of {path} does not tell its format. Give the format: coco, csv, tsv, webdataset or folder."
    )

"""Open training data by its format, which is derived from its path unless it is given."""

from pathlib import Path
from typing import get_args

from sds_clip.models.choices import DataFormat
from sds_clip.models.data.cells import read_cells
from sds_clip.models.data.coco import read_coco
from sds_clip.models.data.folder import read_folder
from sds_clip.models.data.metadata import CAPTION_KEYS, METADATA, metadata_file, read_metadata
from sds_clip.models.data.pairs import StoredPairs
from sds_clip.models.data.shards import read_shards
from sds_clip.models.data.table import read_table
from sds_clip.models.errors import DataError
from sds_clip.models.images.table_cells import PARQUET_SUFFIX
from sds_clip.models.images.tables import IMAGE_KEYS, is_saved_folder, table_files

_IMAGE_KEY, _CAPTION_KEY = "filepath", "title"
"""open_clip's defaults. In the layouts of Hugging Face they stand for the usual names."""


def open_pairs(
    path: str | Path,
    *,
    images: Path | None = None,
    format: DataFormat = "auto",
    image_key: str = _IMAGE_KEY,
    caption_key: str = _CAPTION_KEY,
    separator: str | None = None,
    confined: bool = False,
) -> StoredPairs:
    """Read the list of samples, without their images.

    `images` is the folder that image names are relative to (COCO, tables, `metadata.*`; default: the file's own
    folder). `image_key`, `caption_key` and `separator` are a table's columns and separator, as in open_clip's options
    of these names. Without a separator a table has tabs, unless it is a `.csv` whose first line has none. The layouts
    of Hugging Face have other usual names, which are looked for if the columns have their defaults.
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
    elif kind in ("parquet", "datasets", "imagefolder"):
        image_keys = IMAGE_KEYS if image_key == _IMAGE_KEY else (image_key,)
        caption_keys = CAPTION_KEYS if caption_key == _CAPTION_KEY else (caption_key,)
        if kind == "imagefolder":
            pairs = read_metadata(
                Path(path), images, image_keys=image_keys, caption_keys=caption_keys, separator=separator
            )
        else:
            pairs = read_cells(path, images, image_keys=image_keys, caption_keys=caption_keys)
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


def folder_format(folder: Path) -> DataFormat:
    """Return the format of a folder by what is in it. Raises DataError if that is several splits."""
    if any(folder.glob("[!.]*.tar")):
        return "webdataset"
    if is_saved_folder(folder):
        return "datasets"
    if metadata_file(folder) is not None:
        return "imagefolder"
    if splits := sorted({file.parent.name for name in METADATA for file in folder.glob(f"*/{name}")}):
        raise DataError(
            f"{folder} holds the splits {', '.join(splits)}; give the folder of one, {folder / splits[0]}."
        )
    return "parquet" if table_files(folder) else "folder"


def _format_of(path: str | Path) -> DataFormat:
    by_suffix: dict[str, DataFormat] = {
        ".json": "coco",
        ".jsonl": "imagefolder",
        ".csv": "csv",
        ".tsv": "tsv",
        ".tar": "webdataset",
        PARQUET_SUFFIX: "parquet",
    }
    folder = Path(path)
    if folder.name in METADATA:
        return "imagefolder"
    if folder.is_dir():
        return folder_format(folder)
    if folder.suffix.lower() in by_suffix:
        return by_suffix[folder.suffix.lower()]
    if not folder.exists():
        raise DataError(f"There is no file or folder {path}; check the path.")
    raise DataError(
        f"The name of {path} does not tell its format. Give the format: {', '.join(get_args(DataFormat)[1:])}."
    )

"""Tables whose cells hold images: Parquet files, and folders that Hugging Face's `datasets` saved."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from sds_clip.models.data.metadata import CAPTION_KEYS, sample_of
from sds_clip.models.data.pairs import FilePairs, Sample, StoredPairs
from sds_clip.models.data.table import NEGATIVES_KEY
from sds_clip.models.errors import DataError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import IMAGE_KEYS, find_column, read_rows, table_files

_OPTION = "Name the right column with image_key and caption_key."


class CellPairs(StoredPairs):
    """Samples whose images are cells of tables."""

    def __init__(self, samples: Sequence[Sample], cells: Sequence[ImageRef]) -> None:
        super().__init__(samples)
        self._column, self._files = cells[0].column, [cell.path for cell in cells]
        self._rows = array("q", (cell.row for cell in cells))

    def ref(self, index: int) -> ImageRef:
        return ImageRef(self._files[index], column=self._column, row=self._rows[index])


def read_cells(
    path: str | Path,
    images: Path | None = None,
    *,
    image_keys: tuple[str, ...] = IMAGE_KEYS,
    caption_keys: tuple[str, ...] = CAPTION_KEYS,
) -> CellPairs | FilePairs:
    """Read one sample per row, or per image where the column of images holds paths, relative to `images`.

    Of the keys, the first that is a column is read.

    Raises:
        DataError: no such table or column, several splits, or cells that are no images and no texts.
    """
    files = table_files(path)
    if not files:
        raise DataError(f"{path} holds no Parquet files and no saved data set; check the path.")
    image_key, caption_key = (find_column(files[0], keys, _OPTION) for keys in (image_keys, caption_keys))
    samples: list[Sample] = []
    cells: list[ImageRef] = []
    for sample, image in _rows(files, image_key, caption_key):
        samples.append(sample)
        cells += [image] if image else []
    if not samples:
        raise DataError(f"{path} has no rows; add data.")
    if len(cells) == len(samples):
        return CellPairs(samples, cells)
    if cells:
        raise DataError(
            f"{path}: some files have images in `{image_key}` and others paths; give one kind at a time."
        )
    return FilePairs.by_image(samples, files[0].parent if images is None else images)


def _rows(files: list[Path], image_key: str, caption_key: str) -> Iterator[tuple[Sample, ImageRef | None]]:
    for file in files:
        for key in (image_key, caption_key):
            find_column(file, (key,), _OPTION)
        for where, row in read_rows([file], image_key, caption_key, NEGATIVES_KEY):
            image = row[image_key]
            cell = image if isinstance(image, ImageRef) else None
            name = cell.row_name if cell else image
            if not isinstance(name, str) or not name.strip():
                raise DataError(
                    f"{where}: `{image_key}` holds no image and no path; fill it in or remove the row."
                )
            yield sample_of(name.strip(), row[caption_key], row.get(NEGATIVES_KEY), where), cell

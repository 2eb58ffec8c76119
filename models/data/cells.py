"""Tables whose cells hold images: Parquet files, and folders that Hugging Face's `datasets` saved."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sds_clip.models.data.metadata import CAPTION_KEYS, sample_of
from sds_clip.models.data.pairs import FilePairs, Sample, StoredPairs, UnreadableImage
from sds_clip.models.data.table import NEGATIVES_KEY
from sds_clip.models.errors import DataError
from sds_clip.models.images.files import ImageFileError
from sds_clip.models.images.table_cells import Cell
from sds_clip.models.images.tables import IMAGE_KEYS, find_column, read_rows, table_files

_OPTION = "Name the right column with image_key and caption_key."


class CellPairs(StoredPairs):
    """Samples whose images are cells of tables."""

    def __init__(self, samples: Sequence[Sample], cells: Sequence[Cell]) -> None:
        super().__init__(samples)
        self.cells = cells

    def read(self, index: int) -> bytes:
        try:
            return self.cells[index].read()
        except ImageFileError as error:
            raise UnreadableImage(f"{self.samples[index].name}: the image {error}.") from error


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
    rows = list(_rows(files, image_key, caption_key))
    if not rows:
        raise DataError(f"{path} has no rows; add data.")
    samples = [sample for sample, _ in rows]
    cells = [cell for _, cell in rows if cell is not None]
    if len(cells) == len(rows):
        return CellPairs(samples, cells)
    if cells:
        raise DataError(
            f"{path}: some files have images in `{image_key}` and others paths; give one kind at a time."
        )
    return FilePairs.by_image(samples, files[0].parent if images is None else images)


def _rows(files: list[Path], image_key: str, caption_key: str) -> Iterator[tuple[Sample, Cell | None]]:
    for file in files:
        for key in (image_key, caption_key):
            find_column(file, (key,), _OPTION)
        for where, row in read_rows([file], image_key, caption_key, NEGATIVES_KEY):
            image = row[image_key]
            cell = image if isinstance(image, Cell) else None
            name = cell.name if cell is not None else image
            if not isinstance(name, str) or not name.strip():
                raise DataError(
                    f"{where}: `{image_key}` holds no image and no path; fill it in or remove the row."
                )
            yield sample_of(name.strip(), row[caption_key], row.get(NEGATIVES_KEY), where), cell

"""The address of an image, whatever holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sds_clip.models.images.files import read_image_file

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image is: a file, `size` bytes of one from `offset` on, or a cell of a table; and the box that counts.

    `name` is what lists and messages call it, if that is not its address.
    """

    path: Path
    box: Box | None = None
    offset: int = 0
    size: int | None = None
    column: str | None = None
    row: int = 0
    name: str = ""

    def __str__(self) -> str:
        if self.name or self.column is None:
            return self.name or str(self.path)
        return f"{self.path}, row {self.row}, `{self.column}`"

    @property
    def row_name(self) -> str:
        """What samples and classes call a cell."""
        return f"{self.path.name}/{self.row:08d}"

    @property
    def is_file(self) -> bool:
        return self.size is None and self.column is None

    @property
    def whole(self) -> "ImageRef":
        """The image without its box."""
        return self if self.box is None else replace(self, box=None)

    def read(self) -> bytes:
        """Return the image's bytes. Raises ImageFileError, or NoImageFile if its file does not exist."""
        if self.column is None:
            return read_image_file(self.path, offset=self.offset, size=self.size)
        from sds_clip.models.images.table_cells import read_cell

        return read_cell(self.path, self.column, self.row)

    def as_range(self) -> "ImageRef":
        """Return a cell of an Arrow file as a range of it, which is read without pyarrow, and others as they are.

        Raises: DataError, OSError.
        """
        if self.column is None:
            return self
        from sds_clip.models.images.table_cells import cell_range

        found = cell_range(self.path, self.column, self.row)
        return self if found is None else ImageRef(self.path, self.box, *found)

    def as_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}
        return {name: value for name, value in fields.items() if value not in (None, "")}

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> "ImageRef":
        """Read what `as_json` returned. None stands for what is not set."""
        there = {name: value for name, value in fields.items() if value is not None}
        return cls(**{**there, "path": Path(fields["path"]), "box": tuple(there.get("box", ())) or None})

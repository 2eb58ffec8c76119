"""The rows of an earlier run, by the content of their images and by their paths."""

from collections.abc import Iterable, Iterator

import numpy as np

from sds_clip.models.vectors.mapped import Vectors
from sds_clip.models.vectors.work import Part


class Known:
    """Finds rows by hash. Holds 48 bytes for each row, and its path until that is met."""

    def __init__(self, vectors: Vectors | None) -> None:
        self._vectors = vectors
        records = (
            [] if vectors is None else [(path, bytes.fromhex(digest)) for path, digest in vectors.records]
        )
        self._digests = np.frombuffer(b"".join(digest for _, digest in records), np.uint8).reshape(-1, 32)
        begins = self._digests[:, :8].copy().view(np.uint64).reshape(-1)
        self._order = np.argsort(begins, kind="stable")
        self._begins = begins[self._order]
        self.missing: dict[str, int] = {path: row for row, (path, _) in enumerate(records)}

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, digest: bytes) -> int | None:
        """Return the first row whose image had this SHA-256. May be called by several threads."""
        wanted = np.frombuffer(digest, np.uint8)
        begin = wanted[:8].view(np.uint64)[0]
        first, end = np.searchsorted(self._begins, begin), np.searchsorted(self._begins, begin, "right")
        rows: list[int] = self._order[first:end].tolist()
        return next((row for row in rows if np.array_equal(self._digests[row], wanted)), None)

    def embedding(self, row: int) -> np.ndarray:
        assert self._vectors is not None
        return self._vectors.row(row)

    def meet(self, paths: Iterable[str]) -> None:
        """Take note that these paths are there again, readable or not."""
        for path in paths:
            self.missing.pop(path, None)

    def kept(self, part_rows: int) -> Iterator[Part]:
        """Yield the rows whose paths were not met, in parts."""
        rows = list(self.missing.items())
        for start in range(0, len(rows), part_rows):
            some = rows[start : start + part_rows]
            yield Part(
                entries=0,
                embeddings=[self.embedding(row) for _, row in some],
                rows=[{"path": path, "sha256": self._digests[row].tobytes().hex()} for path, row in some],
            )

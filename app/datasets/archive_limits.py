"""The limits on an archive's content."""

from dataclasses import dataclass

from sds_clip.app.errors import ArchiveTooLarge, InvalidArchive

ENTRY_BYTES = 4096
"""What a file or folder counts for beside its content: a block of the disk, for its inode, its name, and the unused end
of its last block. Without it, empty files would cost time and inodes, and nothing of a quota."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits that are enforced while an archive is unpacked, whatever its headers say.

    Data sets of more files than `max_entries` belong in WebDataset shards. An archive may unpack to
    `max_ratio` times its own size plus `free_bytes`, because small archives of text exceed any ratio.
    """

    max_entries: int = 500_000
    """Files and folders, including folders that only occur in the path of a file."""
    max_total_bytes: int = 200 * 2**30
    """Content and ENTRY_BYTES of all files and folders."""
    max_file_bytes: int = 4 * 2**30
    max_ratio: int = 100
    free_bytes: int = 64 * 2**20
    max_name_bytes: int = 1024
    max_depth: int = 32

    def check_entries(self, count: int) -> None:
        """Raises: ArchiveTooLarge."""
        if count > self.max_entries:
            raise ArchiveTooLarge(
                f"The archive has more than {self.max_entries} files and folders, which is the limit; "
                "send WebDataset shards instead."
            )

    def check_file(self, name: str, size_bytes: int) -> None:
        """Raises: ArchiveTooLarge."""
        if size_bytes > self.max_file_bytes:
            raise ArchiveTooLarge(
                f"the entry has more than {self.max_file_bytes} bytes, which is the limit for a file; "
                "make it smaller.",
                member=name,
            )

    def check_total(self, entries: int, content_bytes: int) -> None:
        """Raises: ArchiveTooLarge."""
        if entries * ENTRY_BYTES + content_bytes > self.max_total_bytes:
            raise ArchiveTooLarge(
                f"The archive unpacks to more than {self.max_total_bytes} bytes, which is the limit, with "
                f"{ENTRY_BYTES} for each file and folder; send less, or pack many small files as WebDataset shards."
            )

    def check_ratio(self, packed_bytes: int, unpacked_bytes: int) -> None:
        """Raises: InvalidArchive."""
        if unpacked_bytes > self.free_bytes + self.max_ratio * packed_bytes:
            raise InvalidArchive(
                f"The archive unpacks to more than {self.max_ratio} times its size; compress the files less.",
                code="archive_bomb",
            )

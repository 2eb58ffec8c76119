"""Whether a worker may take jobs, or else why not."""

from app.data_folder import DataFolder
from app.errors import StoreUnavailable


class Fitness:
    """A worker takes no jobs, and gives back the one that it has, while its data folder is not the database's."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    @property
    def out_because(self) -> str | None:
        """Why the worker takes no jobs, as of the last `look`. None if it takes them."""
        return self._folder.trouble

    @property
    def has_its_folder(self) -> bool:
        """Whether files may be used, as of the last `look`."""
        return self._folder.is_right

    def look(self) -> None:
        """Look again. Raises StoreUnavailable."""
        self._folder.look()

    def may_claim(self) -> bool:
        """Look again, and return whether the worker may take a job now."""
        try:
            self._folder.look()
        except StoreUnavailable:
            return False
        return self.out_because is None

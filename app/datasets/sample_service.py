"""The samples of data sets, and their pictures."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sds_clip.app.datasets.folders import FILES, SHARDS, DatasetFolders
from sds_clip.app.datasets.roots import SourceRoots, expand
from sds_clip.app.datasets.samples import SAMPLES, count_images, read_page, read_sample
from sds_clip.app.errors import (
    InvalidImage,
    NoItem,
    NoSamples,
    NoTables,
    PictureGone,
    ServiceError,
    UnknownRecord,
)
from sds_clip.app.keys import Caller
from sds_clip.app.pictures import Picture, Pictures
from sds_clip.app.schemas.samples import SampleInfo, SampleList
from sds_clip.app.store import SeenBy
from sds_clip.app.store.records import SOURCE_PATH, Dataset, DatasetStatus
from sds_clip.app.store_threads import StoreThreads
from sds_clip.app.threads import in_own_thread
from sds_clip.models.images.files import ImageFileError, NoImageFile
from sds_clip.models.images.ref import ImageRef

_FILE_URL = "file://"

Result = TypeVar("Result")


@dataclass(frozen=True)
class SampleService:
    """Reads the lists that checks have written (`sds_clip.app.datasets.samples`), and the pictures that they name.

    Every method raises StoreUnavailable, StoreBusy, NoSamples, and UnknownRecord for a data set that the caller does
    not see.
    """

    _seen_by: SeenBy
    _threads: StoreThreads
    _folders: DatasetFolders
    _roots: SourceRoots
    _pictures: Pictures

    async def page(self, caller: Caller, dataset_id: str, *, after: int, limit: int) -> SampleList:
        """At most `limit` samples, in the order of the data, whose numbers are above `after`."""
        dataset = await self._dataset(caller, dataset_id)
        found, has_more = await self._listed(dataset, lambda file: read_page(file, after, limit))
        data = [
            SampleInfo(
                **vars(sample) | {"index": index, "images": _paths(dataset_id, index, len(sample.images))}
            )
            for index, sample in found
        ]
        return SampleList(data=data, has_more=has_more)

    async def paths_of(
        self, caller: Caller, dataset_id: str, sample_ids: Sequence[str]
    ) -> dict[str, list[str]]:
        """The paths of the pictures of each sample, by its id. Empty if the data set is gone or has no list."""
        try:
            dataset = await self._dataset(caller, dataset_id)
            found = await self._listed(dataset, lambda file: count_images(file, sample_ids))
        except (UnknownRecord, PictureGone, NoSamples):
            return {}
        return {sample_id: _paths(dataset_id, index, count) for sample_id, (index, count) in found.items()}

    async def picture(
        self, caller: Caller, dataset_id: str, index: int, number: int, *, max_side: int | None
    ) -> tuple[Picture, bool]:
        """A picture of a sample, and whether it can never change. Raises what `Pictures.of` does, and NoItem."""
        dataset = await self._dataset(caller, dataset_id)
        sample = await self._listed(dataset, lambda file: read_sample(file, index))
        if sample is None:
            raise NoItem("The data set has no sample with this number.", param="index")
        if not 0 <= number < len(sample.images):
            raise NoItem(
                f"This sample has no picture with this number; it has {len(sample.images)}.", param="n"
            )
        image = sample.images[number]
        picture = await self._pictures.of(
            lambda: _read(replace(image, path=self._path(dataset, image))), box=image.box, max_side=max_side
        )
        return picture, SOURCE_PATH not in dataset.source

    async def _dataset(self, caller: Caller, dataset_id: str) -> Dataset:
        dataset = await self._threads.run(self._seen_by(caller.sees).datasets.get, dataset_id)
        if dataset.status is DatasetStatus.DELETED:
            raise PictureGone(f"The data set {dataset_id} was deleted.")
        if dataset.status is not DatasetStatus.READY:
            raise NoSamples(
                f"The data set {dataset_id} is {dataset.status}; its samples are listed once it is ready."
            )
        return dataset

    async def _listed(self, dataset: Dataset, read: Callable[[Path], Result]) -> Result:
        file = self._folders.content(dataset.id) / SAMPLES
        try:
            return await in_own_thread(lambda: read(file), "read samples")
        except FileNotFoundError:
            raise NoSamples(
                f"The samples of the data set {dataset.id} are not listed: an older release checked it, or its list "
                "was lost. Add it again."
            ) from None

    def _path(self, dataset: Dataset, image: ImageRef) -> Path:
        """The file of a picture, with all links resolved. Raises PictureGone unless it is one of the data's."""
        registered = dataset.source.get(SOURCE_PATH)
        try:
            if registered is not None:
                # As it was when the data were checked: the folder, or the folder of the first shard.
                first = self._roots.inside(next(expand(str(registered).removeprefix(_FILE_URL))))
                folder = first if first.is_dir() else first.parent
                return self._roots.inside(str(folder / image.path))
            folder = self._folders.content(dataset.id).resolve()
            parts = [folder / name for name in (FILES, SHARDS)]
            path = next(part for part in parts if part.is_dir()).joinpath(image.path).resolve()
        except (ServiceError, OSError, ValueError, RuntimeError, StopIteration):
            raise _gone() from None
        if not any(path.is_relative_to(part) for part in parts):
            raise _gone()
        return path


def _paths(dataset_id: str, index: int, count: int) -> list[str]:
    return [f"/datasets/{dataset_id}/samples/{index}/images/{n}" for n in range(count)]


def _read(image: ImageRef) -> bytes:
    """Raises: PictureGone, InvalidImage, NoTables."""
    if image.column is not None and importlib.util.find_spec("pyarrow") is None:
        raise NoTables(
            "This picture is in a Parquet file, which this server cannot read. Install the extra `tables` where "
            "the service runs: pip install 'sds-clip[tables]'."
        )
    try:
        return image.read()
    except NoImageFile:
        raise _gone() from None
    except ImageFileError as error:
        reason = str(error).replace(str(image.path), image.path.name)
        raise InvalidImage(f"The file of this picture {reason}.") from None


def _gone() -> PictureGone:
    return PictureGone(
        "The file of this picture no longer exists, or is not where it was when it was checked."
    )

"""Resolves a data set's id to the paths that a run or a benchmark reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sds_clip.app.datasets.folders import Content, DatasetFolders, set_content
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.datasets.unpack import content_root
from sds_clip.app.store import Store
from sds_clip.app.store.records import SOURCE_PATH, Dataset, DatasetStatus
from sds_clip.models.data.open import folder_format
from sds_clip.models.errors import DataError
from sds_clip.models.evaluation.annotations import image_folder
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.errors import JobFailed

_TABLES = (".json", ".csv", ".tsv")


@dataclass(frozen=True)
class PairsPlace:
    """Paths of image-caption pairs, as arguments of `sds_clip.models.data.open.open_pairs`."""

    data: Path
    images: Path | None = None


def content_of(store: Store, config: WorkerConfig, dataset_id: str, *, param: str) -> Content:
    """Return the files of a data set that is ready.

    Raises: JobFailed if it was deleted or rejected meanwhile, or its files no longer exist; StoreUnavailable.
    """
    dataset = store.datasets.get(dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise JobFailed("unusable_record", f"The data set {dataset_id} is {dataset.status}.", param=param)
    try:
        return files_of(config, dataset)
    except FileNotFoundError as error:
        raise JobFailed(
            "dataset_missing",
            f"The files of the data set {dataset_id} no longer exist; upload it again.",
            param=param,
        ) from error


def files_of(config: WorkerConfig, dataset: Dataset) -> Content:
    """Return a data set's files: in the operator's folders if it was registered, else in our own.

    Raises: FileNotFoundError; SourceMissing if a registered one no longer exists; SourceForbidden if it leads
    out of the operator's folders.
    """
    registered = dataset.source.get(SOURCE_PATH)
    if registered is None:
        return set_content(DatasetFolders(config.datasets_dir).content(dataset.id))
    roots = SourceRoots(config.dataset_roots)
    content = roots.resolve(str(registered))
    if content.is_folder:
        roots.check_links(content.paths[0])
    return content


def pairs_place(content: Content, links: Path) -> PairsPlace:
    """Find pairs in the usual layouts: shards; a folder of one of Hugging Face's layouts; one COCO file or table, with
    images beside it or in `images/`; or images with text files. Shards from several folders are linked into `links`.

    Raises: DataError if several files could hold the captions.
    """
    if not content.is_folder:
        return PairsPlace(content.paths[0] if len(content.paths) == 1 else _linked(content.paths, links))
    folder = content_root(content.paths[0])
    tables = captions_files(folder, _TABLES)
    if folder_format(folder) != "folder" or not tables:
        return PairsPlace(folder)
    return PairsPlace(exactly_one(tables, folder), image_folder(None, folder, "images"))


def root_of(content: Content) -> Path:
    return content_root(content.paths[0]) if content.is_folder else content.paths[0].parent


def captions_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith(".")
    )


def exactly_one(files: Sequence[Path], folder: Path) -> Path:
    """Return the only file. Raises DataError if there are none or several."""
    if len(files) != 1:
        found = ", ".join(file.name for file in files[:3]) or "none"
        raise DataError(
            f"{folder} must contain one file of captions, but has {found}; make a data set of each."
        )
    return files[0]


def _linked(shards: Sequence[Path], links: Path) -> Path:
    """Link the shards in order into one folder, unless their own folder contains no other shards."""
    parent = shards[0].parent
    if list(shards) == sorted(parent.glob("[!.]*.tar")):
        return parent
    links.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(shards):
        link = links / f"{number:06d}.tar"
        link.unlink(missing_ok=True)
        link.symlink_to(shard)
    return links

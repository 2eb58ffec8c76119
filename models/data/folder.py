"""A folder of images, each with a text file of the same name, in which every non-empty line is a caption."""

from pathlib import Path

from sds_clip.models.data.pairs import FilePairs, Sample
from sds_clip.models.errors import DataError
from sds_clip.models.files import read_text
from sds_clip.models.images.files import IMAGE_SUFFIXES


def read_folder(folder: Path) -> FilePairs:
    """Read one sample per image, including subfolders, in the order of names. Hidden files are left out.

    An image without a text file has no captions. A text file without an image counts as a missing image. The
    checks report both.

    Raises:
        DataError: no such folder, no images in it, two images of one name, or a text that is not UTF-8.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; check the path.")
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file, folder))
    images: dict[Path, Path] = {}
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            key = file.with_suffix("")
            if key in images:
                raise DataError(
                    f"{file}: {images[key].name} has the same name, so both images would share their "
                    "captions; rename one."
                )
            images[key] = file
    if not images:
        raise DataError(
            f"{folder} contains no images ({', '.join(IMAGE_SUFFIXES)}); add images with captions."
        )
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    keys = sorted(images.keys() | texts.keys())
    samples = []
    for key in keys:
        name = images.get(key, key).relative_to(folder).as_posix()
        captions = _captions(texts[key]) if key in texts else ()
        samples.append(Sample(name, captions, ((),) * len(captions)))
    return FilePairs(samples, folder)


def _is_hidden(file: Path, folder: Path) -> bool:
    """Hidden files are what desktops and notebooks leave: `._a.jpg`, `.ipynb_checkpoints/a.jpg`."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _captions(file: Path) -> tuple[str, ...]:
    lines = read_text(file, DataError).split("\n")
    return tuple(line.strip() for line in lines if line.strip())

"""Winoground from the Hugging Face hub, whose repository holds the raw download: examples.jsonl and images.zip."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from models.atomic import atomic_folder
from models.evaluation.errors import EvaluationError

HUB_ID = "facebook/winoground"
EXAMPLES, IMAGES = "data/examples.jsonl", "data/images.zip"

_MAX_FILES, _MAX_BYTES = 10_000, 4 * 2**30


def download_winoground(folder: Path) -> Path:
    """Download the set once into `folder`, and return it. It is gated: its terms are accepted on the hub.

    Raises:
        EvaluationError: no network, no access, or the repository is laid out otherwise.
    """
    if (folder / "examples.jsonl").is_file():
        return folder
    from huggingface_hub import hf_hub_download

    try:
        examples = hf_hub_download(HUB_ID, EXAMPLES, repo_type="dataset")
        images = hf_hub_download(HUB_ID, IMAGES, repo_type="dataset")
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EvaluationError(
            f"{HUB_ID} cannot be downloaded ({type(error).__name__}: {reason}). It needs the network, its terms "
            f"accepted at https://huggingface.co/datasets/{HUB_ID}, and a token (HF_TOKEN). Or download {EXAMPLES} "
            "and images.zip by hand, unpack the images into images/ beside it, and give that folder."
        ) from error
    unpack_winoground(Path(examples), Path(images), folder)
    return folder


def unpack_winoground(examples: Path, images: Path, folder: Path) -> None:
    """Lay out the raw download as `read_winoground` wants it; the folder appears whole or not at all.

    Raises:
        EvaluationError: the archive is damaged, too large, or holds names that lead out of it.
    """
    with atomic_folder(folder) as made:
        (made / "images").mkdir()
        try:
            with zipfile.ZipFile(images) as archive:
                _unpack(archive, made / "images", images)
        except zipfile.BadZipFile as error:
            raise EvaluationError(f"{images}: is not a whole zip file; delete it and try again.") from error
        shutil.copyfile(examples, made / "examples.jsonl")


def _unpack(archive: zipfile.ZipFile, folder: Path, source: Path) -> None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MAX_FILES or sum(member.file_size for member in members) > _MAX_BYTES:
        raise EvaluationError(f"{source}: holds more than Winoground does; it is another archive.")
    for member in members:
        name = PurePosixPath(member.filename)
        # By the last part alone, which cannot lead anywhere; what desktops leave beside images stays behind.
        if name.name.startswith(".") or "__MACOSX" in name.parts:
            continue
        with archive.open(member) as content, (folder / name.name).open("xb") as file:
            shutil.copyfileobj(content, file)

"""The folder of a teacher in diffusers' layout: find it by its reference, and check it before loading."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sds_clip.models.checkpoints.references import demo_folder
from sds_clip.models.clip.version import TOKENIZER_FILES
from sds_clip.models.errors import TeacherError, first_line
from sds_clip.models.files import sha256_of
from sds_clip.models.teacher.choose import check_class, check_scheduler, family_of
from sds_clip.models.teacher.family import Family

_TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_HUB_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(reference: str, *, vae: bool) -> tuple[str, Path]:
    """Return the normalised reference and its folder, after downloading a hub repository's files.

    A reference is `demo`, `local-dir:PATH`, the path of a folder, or a hub's `organisation/name`, in this
    order.

    Raises:
        TeacherError: the reference leads to nothing.
    """
    if reference == "demo":
        return reference, _existing(demo_folder().with_name("teacher"), reference)
    path = Path(reference.removeprefix("local-dir:")).expanduser()
    is_path = reference.startswith(("local-dir:", "/", "./", "../", "~"))
    if is_path or (reference and path.is_dir()):
        return f"local-dir:{path}", _existing(path, reference)
    if not _HUB_REPOSITORY.fullmatch(reference):
        raise TeacherError(
            f"{reference!r} names no teacher. Write demo, the path of a diffusers folder, or a hub's "
            "organisation/name."
        )
    return reference, _download(reference, vae=vae)


def read_json(file: Path) -> dict[str, Any]:
    """Read a configuration file as an object.

    Raises:
        TeacherError: the file is missing, unreadable or no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TeacherError(
            f"{file} is missing; the folder must have all files of diffusers' layout."
        ) from error
    except OSError as error:
        raise TeacherError(f"{file} cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise TeacherError(f"{file} cannot be read ({first_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise TeacherError(f"{file} is not a JSON object; download it again.")
    return content


def find_family(folder: Path, reference: str) -> Family:
    """Read `model_index.json` and the denoiser's configuration, naming what is not supported.

    Raises:
        TeacherError: another kind of model, or a part that is missing, pickled or of another class.
    """
    index = read_json(folder / "model_index.json")
    pipeline = str(index.get("_class_name"))
    kind = f"{reference} is a {pipeline}"
    family = family_of(index, kind)
    check_scheduler(family, read_json(folder / "scheduler" / "scheduler_config.json"), reference, kind)
    config = read_json(folder / family.denoiser / "config.json")
    check_class(family.denoiser, str(family.classes[family.denoiser]), config, kind)
    family.check(config, kind)
    family.caption_width(config), family.pooled_width(config)
    _, side = family.latents(config)
    most = family.largest_side(config)
    if type(side) is not int or side < 1 or side % family.patch or (most is not None and side > most):
        even = " that is even" * (family.patch == 2)
        limit = "" if most is None else f", at most {most}"
        raise TeacherError(
            f"{kind} whose {family.denoiser} has {side} as sample_size. Put the side of its latents into "
            f"{family.denoiser}/config.json: one whole number above 0{even}{limit}."
        )
    weight_files(folder / family.denoiser)
    for part in family.text_encoders:
        weight_files(folder / part)
        meant = str(family.classes[part])
        check_class(part, meant, read_json(folder / part / "config.json"), kind)
        _check_tokenizer(folder / tokenizer_of(part), is_t5=meant == "T5EncoderModel")
    return family


def _check_tokenizer(tokenizer: Path, *, is_t5: bool) -> None:
    needed = ["spiece.model"] if is_t5 else ["vocab.json", "merges.txt"]
    if not (tokenizer / "tokenizer.json").is_file() and not all(
        (tokenizer / name).is_file() for name in needed
    ):
        what = "spiece.model, the sentencepiece model of a T5" if is_t5 else "vocab.json with merges.txt"
        raise TeacherError(f"{tokenizer} has neither {what}, nor tokenizer.json; download the folder again.")


def tokenizer_of(text_encoder: str) -> str:
    return text_encoder.replace("text_encoder", "tokenizer")


def weight_files(part: Path) -> list[Path]:
    """Return the safetensors files that hold the weights of a part, which is a folder.

    Raises:
        TeacherError: there are none under the name that diffusers looks for.
    """
    stem = _stem(part.name)
    found = sorted([*part.glob(f"{stem}.safetensors"), *part.glob(f"{stem}-?????-of-?????.safetensors")])
    if found:
        return found
    pickles = sorted([*part.glob("*.bin"), *part.glob("*.ckpt"), *part.glob("*.pt")])
    if pickles:
        raise TeacherError(
            f"{part} contains its weights only as a pickle ({pickles[0].name}), which can run code "
            "when opened. Use the model's safetensors files, or save the weights once with "
            "diffusers' save_pretrained(safe_serialization=True)."
        )
    others = ", ".join(file.name for file in sorted(part.glob("*.safetensors")))
    none = "contains no weights (pickles are not downloaded from a hub); add"
    held = f"contains only a variant of the weights, {others}; rename it to" if others else none
    raise TeacherError(f"{part} {held} {stem}.safetensors.")


def vae_factor(folder: Path) -> int:
    """Return image pixels per latent pixel. A VAE halves an image between stages; without one it is 8."""
    file = folder / "vae" / "config.json"
    stages = len(read_json(file).get("block_out_channels", ())) if file.is_file() else 4
    return int(2 ** (stages - 1))


def version_of_folder(folder: Path, family: Family) -> str:
    """Return the sha256 over denoiser, text encoders, tokenizers and scheduler as they are stored.

    What a library notes about itself in a configuration (keys that start with _, its version) does not count.
    """
    networks = [family.denoiser, *family.text_encoders]
    configs = [*(f"{part}/config.json" for part in networks), "scheduler/scheduler_config.json"]
    digest = _digest(folder, networks, configs)
    digest.update(family.version_note.encode())
    for part in map(tokenizer_of, family.text_encoders):
        for file in (folder / part / name for name in TOKENIZER_FILES):
            if file.is_file():
                digest.update(f"\n{part}/{file.name}|{sha256_of(file)}".encode())
    return digest.hexdigest()


def version_of_vae(folder: Path) -> str:
    return _digest(folder, ["vae"], ["vae/config.json"]).hexdigest()


def _stem(part: str) -> str:
    """The name of a part's weights, without its ending."""
    return "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"


def _digest(folder: Path, parts: Iterable[str], configs: Iterable[str]) -> hashlib._Hash:
    digest = hashlib.sha256()
    for part in parts:
        for file in weight_files(folder / part):
            digest.update(f"\n{part}/{file.name}|{sha256_of(file)}".encode())
    for name in configs:
        content = {
            key: value
            for key, value in read_json(folder / name).items()
            if not key.startswith("_") and key not in ("transformers_version", "torch_dtype", "dtype")
        }
        digest.update(f"\n{name}|{json.dumps(content, sort_keys=True)}".encode())
    return digest


def _existing(folder: Path, reference: str) -> Path:
    if not folder.is_dir():
        remedy = "make it with `make demo-teacher`" if reference == "demo" else "check the path"
        raise TeacherError(f"{reference}: there is no folder {folder}; {remedy}.")
    return folder


def _download(repository: str, *, vae: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["model_index.json", "vae/config.json", "scheduler/*.json", "tokenizer*/*"]
    # A repository holds one of the two denoisers, and one to three text encoders.
    for part in ("unet", "transformer", *_TEXT_ENCODERS, *(("vae",) if vae else ())):
        # By exact name, since a repository also holds pickles and variants that are just as large.
        stem = _stem(part)
        names = (
            "config.json",
            f"{stem}.safetensors",
            f"{stem}-*-of-*.safetensors",
            f"{stem}.safetensors.index.json",
        )
        wanted += [f"{part}/{name}" for name in names]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:
        raise TeacherError(
            f"{repository} cannot be downloaded ({type(error).__name__}: {first_line(error)}). "
            "Connect to the network, put the files into the Hugging Face cache (see HF_HOME), or "
            "give the same model as a folder, local-dir:PATH."
        ) from error

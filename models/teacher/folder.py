"""The folder of a teacher in diffusers' layout: find it by its reference, and check it before loading."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.errors import TeacherError, first_line
from models.files import sha256_of
from models.sources import demo_folder
from models.version import TOKENIZER_FILES

UNET_WEIGHTS = "diffusion_pytorch_model"
TEXT_WEIGHTS = "model"
_PARTS = {
    "unet": "UNet2DConditionModel",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "scheduler": None,
}
"""The parts of a teacher and the class of each, without transformers' suffix Fast."""
_CONDITIONS = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Settings of a U-Net that needs more input than a noised latent, a timestep and a caption."""
_HUB_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_SCOPE = (
    "A teacher is a U-Net latent diffusion model with one CLIP text encoder (Stable Diffusion 1.x and 2.x)."
)


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
    except (OSError, ValueError) as error:
        raise TeacherError(f"{file} cannot be read ({first_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise TeacherError(f"{file} is not a JSON object; download it again.")
    return content


def check_kind(folder: Path, reference: str) -> None:
    """Check `model_index.json` and the U-Net's configuration, naming what is not supported.

    Raises:
        TeacherError: another kind of model, or a part that is missing, pickled or of another class.
    """
    index = read_json(folder / "model_index.json")
    kind = f"{reference} is a {index.get('_class_name')}"
    parts = {name: part for name, part in index.items() if isinstance(part, list) and any(part)}
    if "transformer" in parts:
        raise TeacherError(f"{kind}: its denoiser is a transformer (flow matching or DiT). {_SCOPE}")
    if "text_encoder_2" in parts:
        raise TeacherError(f"{kind} with several text encoders (SDXL's conditioning). {_SCOPE}")
    for name, meant in _PARTS.items():
        if name not in parts:
            raise TeacherError(f"{kind} without {name}. {_SCOPE}")
        stated = str(parts[name][-1]).removesuffix("Fast")
        if meant not in (None, stated):
            raise TeacherError(f"{kind} whose {name} is a {stated}, not a {meant}. {_SCOPE}")
    _check_unet(read_json(folder / "unet" / "config.json"), kind)
    weight_files(folder / "unet", UNET_WEIGHTS)
    weight_files(folder / "text_encoder", TEXT_WEIGHTS)


def weight_files(part: Path, stem: str) -> list[Path]:
    """Return the safetensors files that hold a part's weights.

    Raises:
        TeacherError: there are none under the name that diffusers looks for.
    """
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


def version_of_folder(folder: Path) -> str:
    """Return the sha256 over U-Net, text encoder, tokenizer and scheduler as they are stored.

    What a library notes about itself in a configuration (keys that start with _, its version) does not count.
    """
    configs = ("unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
    digest = _digest(folder, {"unet": UNET_WEIGHTS, "text_encoder": TEXT_WEIGHTS}, configs)
    for file in (folder / "tokenizer" / name for name in TOKENIZER_FILES):
        if file.is_file():
            digest.update(f"\ntokenizer/{file.name}|{sha256_of(file)}".encode())
    return digest.hexdigest()


def version_of_vae(folder: Path) -> str:
    return _digest(folder, {"vae": UNET_WEIGHTS}, ["vae/config.json"]).hexdigest()


def _digest(folder: Path, weights: Mapping[str, str], configs: Iterable[str]) -> hashlib._Hash:
    digest = hashlib.sha256()
    for part, stem in weights.items():
        for file in weight_files(folder / part, stem):
            digest.update(f"\n{part}/{file.name}|{sha256_of(file)}".encode())
    for name in configs:
        content = {
            key: value
            for key, value in read_json(folder / name).items()
            if not key.startswith("_") and key not in ("transformers_version", "torch_dtype", "dtype")
        }
        digest.update(f"\n{name}|{json.dumps(content, sort_keys=True)}".encode())
    return digest


def _check_unet(config: dict[str, Any], kind: str) -> None:
    asked = [name for name in _CONDITIONS if config.get(name) is not None]
    if asked:
        raise TeacherError(f"{kind} whose U-Net needs more than a caption ({', '.join(asked)}). {_SCOPE}")
    channels_in, channels_out = config.get("in_channels", 4), config.get("out_channels", 4)
    if channels_in != channels_out:
        raise TeacherError(
            f"{kind} whose U-Net takes {channels_in} channels and gives {channels_out}: it is made "
            "for inpainting, depth or similar. Use the plain text-to-image model."
        )
    if not isinstance(config.get("sample_size"), int):
        raise TeacherError(
            f"{kind} whose U-Net does not state one number as sample_size "
            f"({config.get('sample_size')}); put the side of its latents into unet/config.json."
        )


def _existing(folder: Path, reference: str) -> Path:
    if not folder.is_dir():
        remedy = "make it with `make demo-teacher`" if reference == "demo" else "check the path"
        raise TeacherError(f"{reference}: there is no folder {folder}; {remedy}.")
    return folder


def _download(repository: str, *, vae: bool) -> Path:
    from huggingface_hub import snapshot_download

    weights = {"unet": UNET_WEIGHTS, "text_encoder": TEXT_WEIGHTS} | ({"vae": UNET_WEIGHTS} if vae else {})
    wanted = ["model_index.json", "vae/config.json", "scheduler/*.json", "tokenizer/*"]
    for part, stem in weights.items():
        # By exact name, since a repository also holds pickles and variants that are just as large.
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

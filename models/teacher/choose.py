"""Which family a folder belongs to, and which kinds of models are refused by name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.family import SCOPE, Family
from sds_clip.models.teacher.transformer import Flux, PixArt, StableDiffusion3
from sds_clip.models.teacher.unet import StableDiffusion, StableDiffusionXL

_FEW_STEPS = re.compile(r"turbo|lightning|schnell|hyper-?sd|\blcm|[-_]lcm", re.IGNORECASE)
_RENAMED = {"Transformer2DModel": "PixArtTransformer2DModel"}
"""Published PixArt folders have the old name, which diffusers' own loader renames too."""
Parts = Mapping[str, Sequence[str]]


def family_of(index: Mapping[str, Any], kind: str) -> Family:
    """The family of a folder with this model_index.json.

    Raises:
        TeacherError: another kind of model, or a part that is missing or of another class.
    """
    parts: Parts = {name: part for name, part in index.items() if isinstance(part, list) and any(part)}
    if "unet" in parts and "transformer" in parts:
        raise TeacherError(f"{kind} with a unet and a transformer: it mixes families. {SCOPE}")
    family = _by_denoiser(index, parts, kind)
    for name, meant in family.classes.items():
        if name not in parts:
            raise TeacherError(f"{kind} without {name}. {SCOPE}")
        stated = _class(parts[name])
        if meant not in (None, stated):
            raise TeacherError(f"{kind} whose {name} is a {stated}, not a {meant}. {SCOPE}")
    more = sorted(name for name in parts if name.startswith("text_encoder") and name not in family.classes)
    if more:
        raise TeacherError(f"{kind} with {' and '.join(more)}: it mixes families. {SCOPE}")
    return family


def _by_denoiser(index: Mapping[str, Any], parts: Parts, kind: str) -> Family:
    if "transformer" in parts:
        match _class(parts["transformer"]):
            case "PixArtTransformer2DModel":
                return PixArt(str(index.get("_class_name")))
            case "SD3Transformer2DModel":
                return StableDiffusion3(t5="text_encoder_3" in parts)
            case "FluxTransformer2DModel":
                return Flux()
            case other:
                raise TeacherError(f"{kind}: its denoiser is a {other}. {SCOPE}")
    if index.get("requires_aesthetics_score") or ("text_encoder_2" in parts and "text_encoder" not in parts):
        raise TeacherError(f"{kind}: it is a refiner, which only finishes another model's images. {SCOPE}")
    if "text_encoder_2" in parts or "StableDiffusionXL" in str(index.get("_class_name")):
        return StableDiffusionXL(index)
    return StableDiffusion()


def check_scheduler(family: Family, config: Mapping[str, Any], reference: str, kind: str) -> None:
    """Refuse models by their scheduler: of another kind of noise, or distilled to draw in few steps.

    The latter are also known by their names, since some of them have an ordinary scheduler.
    """
    name = str(config.get("_class_name"))
    if name.startswith("EDM") or config.get("sigma_data") is not None:
        raise TeacherError(f"{kind} whose scheduler is a {name} (EDM), which scales its input. {SCOPE}")
    folder = reference.rstrip("/").rpartition("/")[2]
    of_few_steps = f"was distilled to draw in few steps, and says little about single noise levels. {SCOPE}"
    if name.endswith(("LCMScheduler", "TCDScheduler")):
        raise TeacherError(f"{kind} whose scheduler is a {name}: it {of_few_steps}")
    if found := _FEW_STEPS.search(folder):
        named = f"{kind} with {found[0]!r} in its name: such a model"
        raise TeacherError(f"{named} {of_few_steps} If this one was not, put it in a folder of another name.")
    if isinstance(family, Flux) and not config.get("use_dynamic_shifting"):
        raise TeacherError(
            f"{kind} whose scheduler has no use_dynamic_shifting, as FLUX.1-schnell, which was distilled to draw in "
            f"few steps. {SCOPE}"
        )
    if family.is_flow != (name == "FlowMatchEulerDiscreteScheduler"):
        noise = "sigmas of a flow" if family.is_flow else "alphas_cumprod of a noise schedule"
        raise TeacherError(
            f"{kind} whose scheduler is a {name}, but whose {family.denoiser} needs the {noise}: the folder mixes "
            "families. Download it again."
        )


def check_class(part: str, meant: str, config: Mapping[str, Any], kind: str) -> None:
    """Refuse a part whose own configuration says that it is of another class than model_index.json states."""
    stated = config.get("_class_name", config.get("model_type"))
    stated = _RENAMED.get(str(stated), stated)
    kindred = "_class_name" not in config and meant.lower().startswith(str(stated).split("_")[0])
    if stated in (None, meant) or kindred:
        return
    raise TeacherError(
        f"{kind} whose {part}/config.json is that of a {stated}, not of a {meant}: the folder mixes families. "
        "Download it again."
    )


def _class(part: Sequence[str]) -> str:
    name = str(part[-1]).removesuffix("Fast")
    return _RENAMED.get(name, name)

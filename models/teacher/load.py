"""Load a teacher with diffusers' and transformers' own loaders, from safetensors only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sds_clip.models.clip.precision import DTYPES, choose_device, choose_precision
from sds_clip.models.errors import TeacherError, first_line
from sds_clip.models.noise import Levels, PredictionType
from sds_clip.models.teacher.caption_cache import CaptionCache
from sds_clip.models.teacher.family import Family
from sds_clip.models.teacher.folder import (
    find_family,
    find_folder,
    read_json,
    tokenizer_of,
    vae_factor,
    version_of_folder,
    version_of_vae,
    weight_files,
)
from sds_clip.models.teacher.teacher import Teacher


def load_teacher(
    reference: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    guidance: float | None = None,
    vae: bool = False,
    caption_cache: Path | None = None,
    max_cache_bytes: int | None = None,
    offload: bool = False,
) -> Teacher:
    """Load a frozen teacher from `demo`, a diffusers folder or a hub's `organisation/name`.

    A folder is given as a path or as `local-dir:PATH`. `precision` is that of the denoiser, including its norms,
    since they are not trained. `caption_cache` is a folder, which keeps `max_cache_bytes`, or all. `offload` as in
    `Teacher`.

    Raises:
        TeacherError: another kind of model, or a part that is missing, unreadable or does not fit the others.
        PrecisionError: an unknown device or precision.
    """
    import diffusers
    import transformers

    chosen_device = choose_device(device)
    resting = torch.device("cpu") if offload else chosen_device
    cache = None if caption_cache is None else CaptionCache(caption_cache, max_bytes=max_cache_bytes)
    dtype = DTYPES[choose_precision(precision, chosen_device)]
    name, folder = find_folder(reference, vae=vae)
    family = find_family(folder, name)
    channels, side = family.latents(read_json(folder / family.denoiser / "config.json"))
    prediction_type, levels = read_schedule(folder, family, side)
    denoiser_class = getattr(diffusers, str(family.classes[family.denoiser]))
    denoiser = _network(denoiser_class, folder / family.denoiser, torch_dtype=dtype)

    def load_text_encoders() -> dict[str, Any]:
        return {
            part: _network(
                getattr(transformers, str(family.classes[part])),
                folder / part,
                torch_dtype=family.text_dtype(part, dtype),
            ).to(resting)
            for part in family.text_encoders
        }

    text_encoders, tokenizers = load_text_encoders(), {}
    for part in family.text_encoders:
        tokenizer = tokenizer_of(part)
        tokenizers[part] = _part(getattr(transformers, str(family.classes[tokenizer])), folder / tokenizer)
    _check_fit(folder, family, denoiser, text_encoders, tokenizers)
    return Teacher(
        reference=name,
        version=version_of_folder(folder, family),
        family=family,
        denoiser=denoiser.to(resting),
        text_encoders=text_encoders,
        load_text_encoders=load_text_encoders,
        tokenizers=tokenizers,
        vae=_load_vae(folder, channels).to(resting) if vae else None,
        vae_version=version_of_vae(folder) if vae else None,
        prediction_type=prediction_type,
        levels=levels.to(chosen_device),
        latent_shape=(channels, side, side),
        resolution_px=side * vae_factor(folder),
        device=chosen_device,
        dtype=dtype,
        guidance=guidance,
        caption_cache=cache,
        offload=offload,
    )


def read_schedule(folder: Path, family: Family, side: int) -> tuple[PredictionType, Levels]:
    """Return what the denoiser predicts, and the levels of every timestep, from the scheduler's own class.

    Raises:
        TeacherError: the scheduler is unknown, predicts something else, or its betas are not those of a noise
            schedule.
    """
    import diffusers

    kind: Any = getattr(
        diffusers, str(read_json(folder / "scheduler" / "scheduler_config.json").get("_class_name")), None
    )
    if kind is None:
        raise TeacherError(
            f"{folder}/scheduler names no scheduler of diffusers; use the folder of a published model."
        )
    scheduler = _part(kind, folder / "scheduler")
    if family.is_flow:
        return "flow_prediction", Levels.of_flow(_sigmas(folder, scheduler, side))
    abar = getattr(scheduler, "alphas_cumprod", None)
    if abar is None:
        raise TeacherError(
            f"{folder}/scheduler is a {kind.__name__}, which has no alphas_cumprod; a teacher needs a DDPM-like "
            "schedule."
        )
    abar = torch.as_tensor(abar, dtype=torch.float32)
    if not _falls_to_noise(torch.as_tensor(scheduler.betas), abar):
        raise TeacherError(
            f"{folder}/scheduler is not a noise schedule. The betas must be above 0 and below 1 (the "
            "last may be 1: zero terminal SNR), and alphas_cumprod must fall and stay above 0 until "
            "the last. Correct scheduler_config.json, or download it again."
        )
    predicted = scheduler.config.get("prediction_type", "epsilon")
    if predicted not in ("epsilon", "v_prediction"):
        raise TeacherError(
            f"{folder}/scheduler: prediction_type is {predicted}; only epsilon and v_prediction are "
            "supported."
        )
    return predicted, Levels.of_abar(abar)


def _sigmas(folder: Path, scheduler: Any, side: int) -> Tensor:
    """The noise of every timestep of a flow, as the scheduler shifts it: by a number, or by the image's size."""
    config = scheduler.config
    sigmas: Tensor = scheduler.sigmas.float().flip(0)
    try:
        if config.use_dynamic_shifting:
            tokens = (side // 2) ** 2  # in patches of 2 x 2
            share = (tokens - config.base_image_seq_len) / (
                config.max_image_seq_len - config.base_image_seq_len
            )
            mu = config.base_shift + share * (config.max_shift - config.base_shift)
            sigmas = scheduler.time_shift(mu, 1.0, sigmas)
        sound = bool((sigmas > 0).all() and (sigmas <= 1).all() and (sigmas.diff() >= 0).all())  # NaN fails
    except (TypeError, ArithmeticError):
        sound = False
    if not sound or config.invert_sigmas:
        raise TeacherError(
            f"{folder}/scheduler is not that of a flow. Its sigmas must rise from above 0 to at most 1, and "
            "invert_sigmas must be false. Correct scheduler_config.json, or download it again."
        )
    return sigmas


def _falls_to_noise(betas: Tensor, abar: Tensor) -> bool:
    """Return whether abar falls from at most 1, and reaches 0 only at its end, if at all. NaN fails."""
    # For zero terminal SNR some schedulers set the last entry to 2**-24, which may be above the one before
    # it.
    before, last = abar[:-1], abar[-1:]
    sound = [betas > 0, betas[:-1] < 1, betas[-1:] <= 1, abar <= 1, before > 0, before.diff() <= 0, last >= 0]
    return all(bool(each.all()) for each in sound)


def _check_fit(
    folder: Path, family: Family, denoiser: Any, encoders: Mapping[str, Any], tokenizers: Mapping[str, Any]
) -> None:
    fault = ""
    texts = [encoder.config for encoder in encoders.values()]
    for part, text in zip(encoders, texts, strict=True):
        entries, longest = len(tokenizers[part]), family.caption_tokens(part, tokenizers[part])
        places = getattr(text, "max_position_embeddings", longest)  # T5's positions are relative
        if longest > places:
            fault = f"the {tokenizer_of(part)} cuts captions at {longest} tokens, but the {part} has {places} positions"
        if entries > text.vocab_size:
            fault = (
                f"the vocabulary of the {tokenizer_of(part)} has {entries} entries, but that of the {part} has "
                f"{text.vocab_size}"
            )
    needed = family.caption_width(denoiser.config), family.pooled_width(denoiser.config)
    for what, width, made in zip(("", "pooled "), needed, family.made_widths(texts), strict=True):
        if width != made:
            fault = (
                f"the {family.denoiser} needs {what}caption embeddings of width {width}, but the text encoders make "
                f"them of width {made}"
            )
    if fault:
        raise TeacherError(
            f"{folder}: {fault}. The parts belong to different models; download the whole folder again."
        )


def _load_vae(folder: Path, latent_channels: int) -> Any:
    import diffusers

    read_json(folder / "vae" / "config.json")
    weight_files(folder / "vae")
    vae = _network(diffusers.AutoencoderKL, folder / "vae", torch_dtype=torch.float32)
    if vae.config.latent_channels != latent_channels:
        raise TeacherError(
            f"{folder}: the latents have {vae.config.latent_channels} channels in the VAE but "
            f"{latent_channels} in the denoiser. The parts belong to different models; download the "
            "whole folder again."
        )
    _check_normalization(folder / "vae", vae.config)
    return vae


def _check_normalization(part: Path, config: Mapping[str, Any]) -> None:
    """Refuse a VAE that does not state its latents' scale in one known way; see `Teacher.encode_image`."""
    channels = config["latent_channels"]
    stated = [config[name] for name in ("latents_mean", "latents_std") if config.get(name) is not None]
    if len(stated) == 1:
        fault = "it states latents_mean or latents_std without the other"
    elif stated and config.get("shift_factor") is not None:
        fault = "it states both latents_mean and shift_factor"
    elif any(len(numbers) != channels for numbers in stated):
        fault = f"latents_mean and latents_std must have a number for each of {channels} channels"
    elif not all(_all_positive(numbers) for numbers in (config["scaling_factor"] or 0.0, *stated[1:])):
        fault = "scaling_factor and latents_std must be positive"
    elif stated and not torch.tensor(stated[0]).isfinite().all():
        fault = "latents_mean must be finite"
    else:
        return
    raise TeacherError(f"{part}/config.json: {fault}. Correct it, or download it again.")


def _all_positive(numbers: float | list[float]) -> bool:
    values = torch.as_tensor(numbers)
    return bool(((values > 0) & values.isfinite()).all())


def _network(kind: Any, folder: Path, **options: Any) -> Any:
    network, loading = _part(kind, folder, use_safetensors=True, output_loading_info=True, **options)
    missing = sorted(loading["missing_keys"])
    if missing:  # the loaders would initialise these at random and only log it
        raise TeacherError(
            f"{folder}: {len(missing)} weights are missing, for example {missing[0]}; download it again."
        )
    state: dict[str, Tensor] = network.state_dict()
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise TeacherError(
            f"{folder}: {len(broken)} weights are not finite, for example {broken[0]}. If the file is "
            "damaged, download it again. If its numbers are too large for float16, use bfloat16 or "
            "float32."
        )
    return network


def _part(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except Exception as error:
        raise TeacherError(
            f"{folder} cannot be loaded as {kind.__name__} ({type(error).__name__}: "
            f"{first_line(error)}). It may be incomplete, or it may not fit its configuration: "
            "download it again."
        ) from error

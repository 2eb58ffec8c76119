"""What open_clip publishes: architectures, tags, and what the tags of an architecture have in common."""

import json
from difflib import get_close_matches
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained, list_pretrained_tags_by_model

from sds_clip.models.checkpoints.model_config import CONFIG_FILE, STATED
from sds_clip.models.clip.version import effective_model_config
from sds_clip.models.errors import CheckpointError

QUICK_GELU_SUFFIX = "-quickgelu"


def is_architecture(name: str) -> bool:
    """Return whether open_clip knows an architecture of this name."""
    return open_clip.get_model_config(name) is not None


def architecture_config(architecture: str) -> dict[str, Any]:
    """Return open_clip's configuration for an architecture.

    Raises CheckpointError for an unknown one, naming the nearest known ones.
    """
    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        remedy = _nearest(architecture, open_clip.list_models()) or (
            " Choose one of its architectures, such as ViT-B-32. A model is named as demo, ARCHITECTURE/TAG "
            "(ViT-B-32/openai), hf-hub:ORGANISATION/NAME or local-dir:PATH."
        )
        raise CheckpointError(f"open_clip has no architecture {architecture}.{remedy}")
    return config


def _nearest(name: str, names: list[str]) -> str:
    lower = {known.lower(): known for known in names}
    found = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def unknown_tag(architecture: str, tag: str) -> str:
    """Return a message that says why open_clip has no such tag, and which tags it has."""
    plain = architecture.removesuffix(QUICK_GELU_SUFFIX)
    if plain != architecture and get_pretrained_cfg(plain, tag):
        return (
            f"{architecture}/{tag} contradicts itself: the weights {tag} were trained with plain GELU "
            f"and would give wrong scores with QuickGELU. Use {plain}/{tag}."
        )
    tags = list_pretrained_tags_by_model(architecture)
    if not tags:
        names = sorted({name for name, _ in list_pretrained()})
        return f"open_clip publishes no weights for {architecture}.{_nearest(architecture, names)}"
    nearest = _nearest(tag, tags)
    return f"open_clip publishes no {architecture}/{tag}.{nearest} It has: {', '.join(tags)}."


def entry_of_repository(repository: str) -> dict[str, Any] | None:
    """Return open_clip's own entry for the weights in a hub repository, if it has one."""
    for architecture, tag in list_pretrained():
        entry: dict[str, Any] = get_pretrained_cfg(architecture, tag)
        if entry.get("hf_hub", "").rstrip("/") == repository:
            return entry
    return None


def stated_activation(architecture: str, quick_gelu: bool | None) -> bool:
    """Return whether weights without a configuration need QuickGELU.

    Raises CheckpointError if open_clip publishes both kinds for the architecture and nothing was stated, or
    if the architecture's name and the statement contradict each other.
    """
    config = architecture_config(architecture)
    if architecture.endswith(QUICK_GELU_SUFFIX):
        if quick_gelu is False:
            raise CheckpointError(
                f"{architecture}+gelu contradicts itself: it states QuickGELU and GELU. Remove one of the "
                "two."
            )
        return True
    if quick_gelu is not None:
        return quick_gelu
    kinds = {bool(config.get("quick_gelu") or entry.get("quick_gelu")) for entry in _entries(architecture)}
    if len(kinds) == 2:
        raise CheckpointError(
            f"Weights of {architecture} exist with GELU and with QuickGELU (OpenAI's), and the file "
            f"does not say which of them it has. Write {architecture}+quickgelu or "
            f"{architecture}+gelu as the architecture. The wrong one gives wrong scores without an "
            "error."
        )
    return kinds.pop() if kinds else bool(config.get("quick_gelu"))


def published_preprocess(architecture: str, quick_gelu: bool) -> dict[str, Any]:
    """Return the preprocessing shared by all published weights of an architecture and activation.

    Raises CheckpointError if they disagree or there are none.
    """
    entries = _entries(architecture)
    alike = [entry for entry in entries if bool(entry.get("quick_gelu")) == quick_gelu] or entries
    found = {json.dumps({key: entry[key] for key in STATED}): entry for entry in alike}
    if len(found) != 1:
        reason = "do not agree on their" if found else "do not exist, so there is no known"
        raise CheckpointError(
            f"open_clip's published weights for {architecture} {reason} preprocessing. A file of "
            f"weights alone cannot be used then. Make a folder (local-dir:) with an {CONFIG_FILE} "
            f"whose preprocess_cfg gives {', '.join(STATED)}."
        )
    entry = found.popitem()[1]
    return {"fill_color": 0, **{key: entry[key] for key in STATED}}


def _entries(architecture: str) -> list[dict[str, Any]]:
    return [get_pretrained_cfg(architecture, tag) for tag in list_pretrained_tags_by_model(architecture)]


def known_architecture(config: dict[str, Any]) -> str | None:
    """Return open_clip's name for a configuration, ignoring its activation."""

    def shape(candidate: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in effective_model_config(candidate).items() if key != "quick_gelu"}

    wanted = shape(config)
    for name in open_clip.list_models():
        if not name.endswith(QUICK_GELU_SUFFIX) and shape(architecture_config(name)) == wanted:
            return str(name)
    return None

"""A checkpoint's tokenizer as others load it: a `tokenizer.json` that cleans, cuts and pads as open_clip does."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_clip.tokenizer import HFTokenizer
from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as FastTokenizer
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.check import TEXTS

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SPACES = (normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip())
_CLEANED = {
    "whitespace": _SPACES,
    "lower": (*_SPACES, normalizers.Lowercase()),
    "canonicalize": (
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex("[" + "".join(f"\\{sign}" for sign in string.punctuation) + "]"), ""),
        normalizers.Lowercase(),
        *_SPACES,
    ),
}
"""open_clip's ways to clean a text, without its repair of broken encodings and of HTML entities."""


def transformers_tokenizer(clip: Clip, text_config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Return transformers' form of a checkpoint's tokenizer.

    Raises CheckpointError if it has none.
    """
    tokenizer: Any = clip.tokenizer
    inner, options = tokenizer.inner, dict(text_config.get("tokenizer_kwargs") or {})
    own = not isinstance(inner, HFTokenizer)
    clean = options.pop("clean", "lower" if own else "whitespace")
    if unknown := [*options, *["tokenizer_mode"] * bool(text_config.get("tokenizer_mode"))]:
        raise _refused(f"it is used with {', '.join(unknown)}, which only open_clip knows")
    if own and clean == "lower":
        return _own(inner)
    fast = _own(inner) if own else inner.tokenizer
    backend = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise _refused(f"{type(fast).__name__} has no fast form (tokenizer.json)")
    return _cleaning(fast, backend, clean, inner.context_length)


def write_tokenizer_json(folder: Path, clip: Clip, text_config: Mapping[str, Any]) -> None:
    """Write a tokenizer.json that gives the tokens of a whole context, padding included.

    Raises CheckpointError if it would give other tokens.
    """
    known = transformers_tokenizer(clip, text_config)
    tokenizer: Any = clip.tokenizer
    backend = FastTokenizer.from_str(known.backend_tokenizer.to_str())
    pad = (
        known.pad_token_id if isinstance(tokenizer.inner, HFTokenizer) else 0
    )  # open_clip's own pads with zeros
    backend.enable_truncation(clip.context_length)
    backend.enable_padding(
        length=clip.context_length,
        pad_id=pad,
        pad_token=backend.id_to_token(pad),
        direction=known.padding_side,
    )
    file = folder / "tokenizer.json"
    backend.save(str(file))
    tokens = [encoded.ids for encoded in FastTokenizer.from_file(str(file)).encode_batch(list(TEXTS))]
    if tokens != clip.tokenizer(list(TEXTS)).tolist():
        raise _refused("the tokenizer.json that was written gives other tokens")


def _own(inner: Any) -> PreTrainedTokenizerFast:
    """Return CLIP's own tokenizer, whose two special tokens have other names in transformers."""
    vocabulary: dict[str, int] = dict(inner.encoder)
    vocabulary[_START], vocabulary[_END] = (
        vocabulary.pop(name) for name in ("<start_of_text>", "<end_of_text>")
    )
    merges = list(inner.bpe_ranks)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=inner.context_length)


def _cleaning(fast: Any, backend: Any, clean: str, context: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer that cleans a text first, and gives tokens alone: padding is read like any other token."""
    copy = FastTokenizer.from_str(backend.to_str())
    rest = [] if copy.normalizer is None else [copy.normalizer]
    copy.normalizer = normalizers.Sequence([*_CLEANED[clean], *rest])
    return PreTrainedTokenizerFast(
        tokenizer_object=copy,
        model_max_length=context,
        model_input_names=["input_ids"],
        padding_side=fast.padding_side,
        **{name: str(token) for name in _SPECIAL if (token := getattr(fast, name, None)) is not None},
    )


def _refused(reason: str) -> CheckpointError:
    return CheckpointError(f"The tokenizer cannot be exported: {reason}. Export with --format open_clip.")

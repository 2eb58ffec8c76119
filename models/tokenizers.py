"""The tokenizer of a checkpoint, made safe for many threads and for strangers' texts."""

from __future__ import annotations

import heapq
import threading
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from models.errors import ModelError
from models.references import CheckpointError

MAX_CACHED_WORDS = 50_000
LONG_WORD = 64
"""From this many symbols on, open_clip's quadratic merge loop is left for a heap with the same result."""


class TextError(ModelError):
    """A text that has no tokens in any vocabulary."""

    code: ClassVar[str] = "invalid_text"


class Tokenizer:
    """Texts to tokens, one caller at a time.

    Fast tokenizers keep their truncation and padding in themselves and fail when two threads meet there.
    """

    def __init__(self, inner: HFTokenizer | SimpleTokenizer) -> None:
        self.inner = inner
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int:
        """Tokens a text, padding included."""
        return int(self.inner.context_length)

    def __call__(self, texts: list[str]) -> Int[Tensor, "n context"]:
        """Tokenize as open_clip's tokenizer for this checkpoint does.

        Raises TextError for a text with lone surrogates, which is not Unicode.
        """
        for index, text in enumerate(texts):
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise TextError(f"Text {index} holds half of a surrogate pair, which is not a character.")
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        with self._lock:
            tokens: Tensor = self.inner(texts)
        return tokens.long()


class BoundedSimpleTokenizer(SimpleTokenizer):  # type: ignore[misc]
    """CLIP's own tokenizer with a bounded memory of words and no quadratic time for long ones."""

    cache: dict[str, str]

    def bpe(self, token: str) -> str:
        """Merge a word's symbols by rank; the same as open_clip's."""
        if len(self.cache) > MAX_CACHED_WORDS:
            self.cache = {special: special for special in (self.decoder[i] for i in self.all_special_ids)}
        if len(token) < LONG_WORD:
            merged: str = super().bpe(token)
            return merged
        return " ".join(merge_by_rank([*token[:-1], token[-1] + "</w>"], self.bpe_ranks))


def merge_by_rank(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding in O(n log n): always the lowest-ranked pair, the leftmost first."""
    following: list[int] = list(range(1, len(symbols) + 1))
    previous: list[int] = list(range(-1, len(symbols) - 1))
    alive = [True] * len(symbols)
    heap: list[tuple[int, int, str, str]] = []

    def offer(left: int) -> None:
        if left >= 0 and following[left] < len(symbols):
            pair = (symbols[left], symbols[following[left]])
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair], left, *pair))

    for position in range(len(symbols)):
        offer(position)
    while heap:
        _, left, first, second = heapq.heappop(heap)
        right = following[left]
        if not alive[left] or right >= len(symbols) or (symbols[left], symbols[right]) != (first, second):
            continue  # one of the two was merged away since
        symbols[left] = first + second
        alive[right] = False
        following[left] = following[right]
        if following[left] < len(symbols):
            previous[following[left]] = left
        offer(previous[left])
        offer(left)
    return [symbol for symbol, kept in zip(symbols, alive, strict=True) if kept]


def load_tokenizer(text_config: dict[str, Any], source: Path | str | None) -> Tokenizer:
    """Build the tokenizer that a text configuration names.

    `source` is its folder or hub name, None for CLIP's own.

    Raises CheckpointError where its files are missing or its vocabulary is larger than the model's.
    """
    options = dict(text_config.get("tokenizer_kwargs") or {})
    context_length = text_config.get("context_length", 77)
    inner: HFTokenizer | SimpleTokenizer
    if source is None:
        inner = BoundedSimpleTokenizer(context_length=context_length, **options)
        size = inner.vocab_size
    else:
        try:
            inner = HFTokenizer(
                str(source),
                context_length=context_length,
                tokenizer_mode=text_config.get("tokenizer_mode"),
                **options,
            )
        except Exception as error:
            raise CheckpointError(
                f"The tokenizer in {source} cannot be loaded ({type(error).__name__}: {first_line(error)}). "
                "A folder needs its tokenizer's files (tokenizer.json and tokenizer_config.json) beside "
                "open_clip_config.json; a hub name needs the network or a filled cache (HF_HOME)."
            ) from error
        size = len(inner.tokenizer)
    vocabulary = text_config.get("vocab_size", 49408)
    if size > vocabulary:
        raise CheckpointError(
            f"The tokenizer knows {size} tokens and the model {vocabulary} (text_cfg.vocab_size): "
            "they do not belong together. Put the model's own tokenizer beside its weights."
        )
    return Tokenizer(inner)


def first_line(error: BaseException) -> str:
    """An error's first line, short enough for a message."""
    return (str(error).strip().splitlines() or [""])[0][:300]

"""A checkpoint's tokenizer, made safe for many threads and for untrusted texts."""

from __future__ import annotations

import heapq
import sys
import threading
from collections.abc import Sequence
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from sds_clip.models.errors import CheckpointError, ModelError, first_line

# open_clip's cache of merged words has no bound, and a service sees any number of words.
MAX_CACHED_WORDS = 50_000
LONG_WORD = 64
"""Words of this many symbols or more are merged with a heap, since open_clip's merge loop is quadratic."""
LONGEST_SYMBOL = 32
"""Characters in the longest symbol of CLIP's vocabulary, including its end-of-word mark."""


class TextError(ModelError):
    """The text cannot be made into tokens."""

    code: ClassVar[str] = "invalid_text"


class Tokenizer:
    """Turns texts into tokens, for one caller at a time.

    Fast tokenizers store their truncation and padding settings in themselves, and fail when two threads
    change them.
    """

    def __init__(self, inner: HFTokenizer | BoundedSimpleTokenizer) -> None:
        self.inner = inner
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int:
        """Tokens per text, including padding."""
        return int(self.inner.context_length)

    def __call__(self, texts: list[str]) -> Int[Tensor, "n context"]:
        """Tokenize as open_clip's tokenizer for this checkpoint does.

        Raises TextError for a text with lone surrogates, which is not Unicode.
        """
        for index, text in enumerate(texts):
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise TextError(f"Text {index} has a lone surrogate, which is not a valid character.")
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        with self._lock:
            tokens: Tensor = self.inner(texts)
        return tokens.long()

    def count(self, texts: Sequence[str], *, at_most: int | None = None) -> list[int]:
        """The number of tokens of each text, with those at its start and end.

        Tokens beyond `at_most`, which is the context by default, are not counted.
        """
        if not texts:
            return []
        at_most = at_most or self.context_length
        with self._lock:
            if isinstance(self.inner, BoundedSimpleTokenizer):
                return [len(self.inner.encode(text, at_most - 2)) + 2 for text in texts]
            cleaned = [self.inner.clean_fn(text) for text in texts]
            found = self.inner.tokenizer(cleaned, truncation=True, max_length=at_most)
        return [len(ids) for ids in found["input_ids"]]


class BoundedSimpleTokenizer(SimpleTokenizer):  # type: ignore[misc]
    """CLIP's own tokenizer, with the same tokens. It stops when the context is full, and its cache is bounded."""

    cache: dict[str, str]

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Int[Tensor, "n context"]:
        """Tokenize as open_clip does, without looking at text beyond the last token of the context."""
        texts = [texts] if isinstance(texts, str) else texts
        context_length = context_length or self.context_length
        if self.reduction_fn is not None:  # it chooses tokens from the whole text
            reduced: Tensor = super().__call__(texts, context_length)
            return reduced
        tokens = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            ids = [self.sot_token_id, *self.encode(text, context_length - 2), self.eot_token_id]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def encode(self, text: str, max_tokens: int = sys.maxsize) -> list[int]:
        """Return the ids of a text's first tokens, without the start and end tokens."""
        ids: list[int] = []
        for match in self.pat.finditer(self.clean_fn(text)):
            if len(ids) >= max_tokens:
                break
            word = "".join(self.byte_encoder[byte] for byte in match[0].encode())
            if len(word) < LONG_WORD:
                symbols = self.bpe(word).split(" ")
            else:
                symbols = first_merged([*word[:-1], word[-1] + "</w>"], self.bpe_ranks, max_tokens - len(ids))
            ids += [self.encoder[symbol] for symbol in symbols]
        return ids[:max_tokens]

    def bpe(self, token: str) -> str:
        if len(self.cache) > MAX_CACHED_WORDS:
            self.cache = {special: special for special in (self.decoder[i] for i in self.all_special_ids)}
        merged: str = super().bpe(token)
        return merged


def first_merged(symbols: list[str], ranks: dict[tuple[str, str], int], count: int) -> list[str]:
    """Return the first `count` symbols, or a few more, that byte-pair encoding makes of a long word.

    Cutting a word at one of its final symbol boundaries and encoding both parts gives the same symbols as
    encoding the whole. So the word is encoded piece by piece, each piece starting at the last boundary that
    is certain.
    """
    merged: list[str] = []
    start, size = 0, LONG_WORD
    while start < len(symbols) and len(merged) < count:
        end = start + size
        certain = merge_by_rank(
            symbols[start:end], ranks, beyond="".join(symbols[end : end + LONGEST_SYMBOL])
        )
        merged += certain
        start += sum(map(len, certain))
        size = LONG_WORD if certain else 2 * size  # no boundary was certain: look at more of the word
    return merged


def merge_by_rank(symbols: list[str], ranks: dict[tuple[str, str], int], *, beyond: str = "") -> list[str]:
    """Byte-pair encode in O(n log n): always merge the lowest-ranked pair, the leftmost first.

    If the word goes on in `beyond`, return only the merged symbols that do not depend on it. Symbols are dropped
    from the end, as soon as merging reaches a rank at which they could merge with what follows. This is correct
    only for ranks that come from training: a pair ranks after the pairs that its two symbols are made of.
    """
    text = "".join(symbols) + beyond
    end = len(symbols)
    following: list[int] = list(range(1, end + 1))
    previous: list[int] = list(range(-1, end - 1))
    alive = [True] * end
    heap: list[tuple[int, int, str, str]] = []

    def offer(left: int, after: int = -1) -> None:
        if left < 0:
            return
        right = following[left]
        if right < end:
            seconds = [symbols[right]]
        else:
            seconds = [
                text[right:stop] for stop in range(right + 1, min(right + LONGEST_SYMBOL, len(text)) + 1)
            ]
        pairs = [(ranks[pair], pair) for second in seconds if (pair := (symbols[left], second)) in ranks]
        if later := [(rank, pair) for rank, pair in pairs if rank > after]:
            rank, pair = min(later)
            heapq.heappush(heap, (rank, left, *pair))

    for position in range(end):
        offer(position)
    while heap:
        rank, left, first, second = heapq.heappop(heap)
        if not alive[left] or symbols[left] != first:
            continue  # merged away or given up since
        right = following[left]
        if right >= end:
            alive[left] = False
            end = left
            offer(previous[left], rank)
            continue
        if symbols[right] != second:
            continue
        symbols[left] = first + second
        alive[right] = False
        following[left] = following[right]
        if following[left] < end:
            previous[following[left]] = left
        offer(previous[left])
        offer(left)
    return [symbol for symbol, kept in zip(symbols, alive, strict=True) if kept]


def _clip_tokenizer() -> BoundedSimpleTokenizer:
    """CLIP's own tokenizer, without options. All of them share the vocabulary, which is large and slow to read."""
    tokenizer = copy(_read_vocabulary())
    tokenizer.cache = dict(tokenizer.cache)
    return tokenizer


@cache
def _read_vocabulary() -> BoundedSimpleTokenizer:
    return BoundedSimpleTokenizer()


def load_tokenizer(text_config: dict[str, Any], source: Path | str | None) -> Tokenizer:
    """Build the tokenizer that a text configuration names.

    `source` is its folder or hub name, or None for CLIP's own.

    Raises CheckpointError if its files are missing or its vocabulary is larger than the model's.
    """
    options = dict(text_config.get("tokenizer_kwargs") or {})
    context_length = text_config.get("context_length", 77)
    inner: HFTokenizer | BoundedSimpleTokenizer
    if source is None:
        inner = BoundedSimpleTokenizer(**options) if options else _clip_tokenizer()
        inner.context_length = context_length
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
                f"The tokenizer in {source} cannot be loaded ({type(error).__name__}: "
                f"{first_line(error)}). A folder needs its tokenizer's files (tokenizer.json and "
                "tokenizer_config.json) next to open_clip_config.json. A hub name needs the network, or "
                "the files in the Hugging Face cache (see HF_HOME)."
            ) from error
        size = len(inner.tokenizer)
    vocabulary = text_config.get("vocab_size", 49408)
    if size > vocabulary:
        raise CheckpointError(
            f"The tokenizer knows {size} tokens, but the model knows {vocabulary} "
            "(text_cfg.vocab_size). Put the model's own tokenizer next to its weights."
        )
    return Tokenizer(inner)

"""A checkpoint's tokenizer, made safe for many threads and for untrusted texts."""

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
from tokenizers.models import BPE
from torch import Tensor

from sds_clip.models.errors import CheckpointError, ModelError, first_line

# open_clip's cache of merged words has no bound, and a service sees any number of words.
MAX_CACHED_WORDS = 50_000


class TextError(ModelError):
    """The text cannot be made into tokens."""

    code: ClassVar[str] = "invalid_text"


class Tokenizer:
    """Turns texts into tokens, for one caller at a time.

    Fast tokenizers store their truncation and padding settings in themselves, and fail when two threads
    change them.
    """

    def __init__(self, inner: "HFTokenizer | BoundedSimpleTokenizer") -> None:
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
    """CLIP's own tokenizer, with the same tokens. It stops when the context is full, and its cache is bounded.

    The library `tokenizers` merges the words. open_clip's own loop is quadratic in the length of a word.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._words = BPE(
            self.encoder, list(self.bpe_ranks), end_of_word_suffix="</w>", cache_capacity=MAX_CACHED_WORDS
        )

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Int[Tensor, "n context"]:
        """Tokenize as open_clip does, without looking at words beyond the last token of the context."""
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
            special = word in self.cache  # which holds nothing else, since open_clip's loop is not used
            ids += [self.encoder[word]] if special else [token.id for token in self._words.tokenize(word)]
        return ids[:max_tokens]


@cache
def _clip_tokenizer() -> BoundedSimpleTokenizer:
    """CLIP's own tokenizer, without options. All of them share the vocabulary, which is large and slow to read."""
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
        inner = BoundedSimpleTokenizer(**options) if options else copy(_clip_tokenizer())
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

"""A tokenizer of T5's kind for the demo world: a token for each of its words, and for each character."""

from __future__ import annotations

import string
from pathlib import Path

from jaxtyping import Int
from torch import Tensor
from transformers import T5Tokenizer

SPECIAL = ("<pad>", "</s>", "<unk>")
START_OF_WORD = "\u2581"
_SPELLED = -10.0
"""The log probability of a character: a word of the world, at 0, is never spelled."""


def save_teacher_tokenizer(folder: Path, captions: list[str], context_length: int) -> None:
    """Write the files that transformers 5 reads. Any text of ASCII characters can be spelled."""
    words = sorted({word for caption in captions for word in caption.split()})
    characters = [START_OF_WORD, *string.ascii_lowercase, *string.digits, *string.punctuation]
    vocabulary = [
        *((piece, 0.0) for piece in SPECIAL),
        *((START_OF_WORD + word, 0.0) for word in words),
        *((character, _SPELLED) for character in characters),
    ]
    T5Tokenizer(vocabulary, extra_ids=0, model_max_length=context_length).save_pretrained(folder)


def load_teacher_tokenizer(folder: Path) -> T5Tokenizer:
    tokenizer: T5Tokenizer = T5Tokenizer.from_pretrained(folder)
    return tokenizer


def tokenize(tokenizer: T5Tokenizer, captions: list[str]) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"]]:
    """The captions' tokens, and a mask that is 1 for a token and 0 for padding."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return tokens.input_ids, tokens.attention_mask

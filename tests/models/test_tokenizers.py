from __future__ import annotations

import random

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from models import tokenizers
from models.tokenizers import BoundedSimpleTokenizer, TextError, Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(BoundedSimpleTokenizer())


@pytest.fixture(scope="module")
def open_clips() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "a\x00b",
        "naïve café",
        "🐈‍⬛ on a 🟥",
        "&lt;b&gt; it's",
        "<start_of_text> a <end_of_text>",
        "a" * 200,
    ],
)
def test_odd_text_gets_open_clips_tokens(
    tokenizer: Tokenizer, open_clips: SimpleTokenizer, text: str
) -> None:
    assert torch.equal(tokenizer([text]), open_clips([text]))


def test_long_words_are_merged_as_open_clip_merges_them(open_clips: SimpleTokenizer) -> None:
    draw = random.Random(0)
    ours = BoundedSimpleTokenizer()
    for alphabet in ("a", "ab", "the", "abcdefghijklmnopqrstuvwxyz", "aeé日"):
        for length in (64, 65, 120, 300):
            word = "".join(draw.choice(alphabet) for _ in range(length))
            assert ours.encode(word) == open_clips.encode(word)


def test_longest_allowed_word_is_cut_to_the_context(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["ab" * 2048])[0]
    assert tokens.shape == (77,)
    assert tokens[-1] == tokenizer.inner.eot_token_id


def test_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch, open_clips: SimpleTokenizer) -> None:
    monkeypatch.setattr(tokenizers, "MAX_CACHED_WORDS", 100)
    ours = BoundedSimpleTokenizer()
    texts = [
        f"zq{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{'uvwxyz'[i // 100 % 6]}" for i in range(600)
    ]
    assert torch.equal(ours(texts), open_clips(texts))
    assert len(ours.cache) <= 101
    assert torch.equal(ours(["<end_of_text>"]), open_clips(["<end_of_text>"]))


def test_lone_surrogate_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match="Text 1"):
        tokenizer(["fine", "half \ud83d"])

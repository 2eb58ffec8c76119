from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from sds_clip.models.clip import tokenizers
from sds_clip.models.clip.tokenizers import BoundedSimpleTokenizer, TextError, Tokenizer, load_tokenizer


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


CHARACTERS = st.one_of(
    st.sampled_from("aehlnoty '!.,01&<;\n"),
    st.sampled_from("éΣβ日🐈😂ﷺ\u0301\u200d\ufeff\x1b"),
    st.characters(codec="utf-8"),
)
PIECES = st.one_of(
    st.text(CHARACTERS, max_size=20),
    st.sampled_from(["&amp;", "&lt;b&gt;", "Ã©â€™", "<END_OF_TEXT>", "it's", "😂😍", "🇺🇸"]),
)
TEXTS = st.lists(st.tuples(PIECES, st.integers(1, 80)), max_size=8).map(
    lambda parts: "".join(piece * count for piece, count in parts)
)


@settings(max_examples=300)
@given(TEXTS, st.sampled_from([77, 20, 3]))
def test_any_text_gets_open_clips_tokens(
    tokenizer: Tokenizer, open_clips: SimpleTokenizer, text: str, context_length: int
) -> None:
    assert torch.equal(tokenizer.inner([text], context_length), open_clips([text], context_length))


@settings(max_examples=200)
@given(st.text(st.sampled_from("aehlnot!"), min_size=64, max_size=600))
def test_long_words_of_few_letters_get_open_clips_tokens(
    tokenizer: Tokenizer, open_clips: SimpleTokenizer, word: str
) -> None:
    assert tokenizer.inner.encode(word) == open_clips.encode(word)


def test_pairs_rank_behind_what_their_symbols_are_made_of(tokenizer: Tokenizer) -> None:
    """Otherwise the library might merge pairs in another order than open_clip."""
    ranks = tokenizer.inner.bpe_ranks
    made_at = {first + second: rank for (first, second), rank in ranks.items()}
    assert len(made_at) == len(ranks)
    assert all(rank > made_at.get(symbol, -1) for pair, rank in ranks.items() for symbol in pair)


def test_words_beyond_the_context_are_not_looked_at(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    merge = tokenizer.inner._words

    class Counting:
        def tokenize(self, word: str) -> Any:
            seen.append(word)
            return merge.tokenize(word)

    monkeypatch.setattr(tokenizer.inner, "_words", Counting())
    expected = tokenizer(["qzjx " * 100])
    assert torch.equal(tokenizer(["qzjx " * 10_000]), expected)
    assert len(seen) < 2 * 77


def test_more_words_than_are_kept_get_open_clips_tokens(
    monkeypatch: pytest.MonkeyPatch, open_clips: SimpleTokenizer
) -> None:
    monkeypatch.setattr(tokenizers, "MAX_CACHED_WORDS", 100)
    ours = BoundedSimpleTokenizer()
    texts = [
        f"zq{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{'uvwxyz'[i // 100 % 6]}" for i in range(600)
    ]
    for _ in range(2):
        assert torch.equal(ours(texts), open_clips(texts))
    assert torch.equal(ours(["<end_of_text>"]), open_clips(["<end_of_text>"]))
    assert len(ours.cache) == 2  # open_clip's own cache, which has no bound, is not used


def test_lone_surrogate_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match="Text 1"):
        tokenizer(["fine", "half \ud83d"])


def test_tokenizers_share_the_vocabulary_and_not_the_length_of_their_context() -> None:
    first, second = (load_tokenizer({"context_length": length}, None) for length in (77, 16))
    assert first.inner.encoder is second.inner.encoder
    assert first(["zebra"]).shape == (1, 77)
    assert (first.context_length, second.context_length) == (77, 16)
    assert second(["zebra"]).shape == (1, 16)

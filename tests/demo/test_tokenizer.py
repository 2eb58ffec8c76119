import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer

from sds_clip.demo.sets import pairs, training_pairs
from sds_clip.demo.tokenizer import CONTEXT_LENGTH, END, PAD, build_tokenizer, save_tokenizer
from sds_clip.demo.world import Split

STUDENT = Path(__file__).parents[2] / "demo" / "student"


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    return open_clip.get_tokenizer(f"local-dir:{STUDENT}")


def words(tokenizer: HFTokenizer, text: str) -> str:
    return str(tokenizer.tokenizer.decode(tokenizer(text)[0], skip_special_tokens=True)).strip()


@pytest.mark.parametrize(
    "text", ["a photo of a red circle", "crème brûlée", "猫が好き", "emoji 🦊 ok", "<b>&co;", "q" * 12]
)
def test_any_text_is_spelled_and_never_unknown(tokenizer: HFTokenizer, text: str) -> None:
    assert words(tokenizer, text) == text


def test_capitals_do_not_matter(tokenizer: HFTokenizer) -> None:
    assert torch.equal(tokenizer("A Photo of a RED Circle"), tokenizer("a photo of a red circle"))


def test_words_of_the_world_are_one_entry_each(tokenizer: HFTokenizer) -> None:
    captions = pairs(Split.HELD_OUT, 4, 0, 500).captions
    entries = (tokenizer(captions) != tokenizer.tokenizer.pad_token_id).sum(dim=1) - 2
    assert entries.tolist() == [len(text.split()) for text in captions]


def test_captions_fit_thirty_tokens(tokenizer: HFTokenizer) -> None:
    tokens = tokenizer(training_pairs(5, 0, 3000).captions)
    assert tokens.shape[1] == CONTEXT_LENGTH == 32
    assert (tokens != tokenizer.tokenizer.pad_token_id).sum(dim=1).max() <= 30


@pytest.mark.parametrize("text", ["", "a red circle", "word " * 100])
def test_end_token_is_the_highest_and_stands_before_the_padding(tokenizer: HFTokenizer, text: str) -> None:
    (tokens,) = tokenizer(text)
    end = tokenizer.tokenizer.convert_tokens_to_ids(END)
    pad = tokenizer.tokenizer.convert_tokens_to_ids(PAD)
    assert end == len(tokenizer.tokenizer) - 1
    assert (tokens == end).sum() == 1
    assert (tokens[tokens.argmax() + 1 :] == pad).all()


def test_training_it_again_gives_the_same_tokenizer(tokenizer: HFTokenizer) -> None:
    again = build_tokenizer(training_pairs(0, 0, 8192).captions)
    assert again.get_vocab() == tokenizer.tokenizer.get_vocab()


def test_saved_configuration_is_the_shipped_one_and_names_a_class_of_transformers_4(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, training_pairs(0, 0, 8192).captions)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["add_prefix_space"]  # the pre-tokenizer's own setting, which 4 would turn off
    assert config == json.loads((STUDENT / "tokenizer_config.json").read_text())

from pathlib import Path

import pytest
from transformers import T5Tokenizer

from sds_clip.demo.captions import HORIZONTAL, SIZE_WORDS, VERTICAL
from sds_clip.demo.sets import pairs, training_pairs
from sds_clip.demo.teacher import CONTEXT_LENGTH
from sds_clip.demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer
from sds_clip.demo.world import COLOURS, SHAPES, Split


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_teacher_tokenizer(folder, training_pairs(1000, 0, 2048).captions, CONTEXT_LENGTH)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> T5Tokenizer:
    return load_teacher_tokenizer(folder)


def test_every_word_of_the_world_is_one_token(tokenizer: T5Tokenizer) -> None:
    sizes = [word for synonyms in SIZE_WORDS.values() for word in synonyms]
    relations = " ".join(phrase for row in (*HORIZONTAL, *VERTICAL) for phrase in row).split()
    words = [*SHAPES, *COLOURS, *sizes, *relations]
    tokens = tokenizer(words, add_special_tokens=False).input_ids
    assert [len(ids) for ids in tokens] == [1] * len(words)
    assert len({ids[0] for ids in tokens}) == len(set(words))


def test_captions_of_unseen_combinations_take_a_token_a_word(tokenizer: T5Tokenizer) -> None:
    captions = pairs(Split.HELD_OUT, 4, 0, 300).captions
    lengths = [len(ids) for ids in tokenizer(captions).input_ids]
    assert lengths == [len(text.split()) + 1 for text in captions]


def test_longest_caption_fits_the_text_encoder() -> None:
    assert max(len(text.split()) for text in training_pairs(5, 0, 5000).captions) + 1 == 17 < CONTEXT_LENGTH


@pytest.mark.parametrize("text", ["redcircle", "<b>&co;", "q" * 12, "a-b, c.", "3 cats"])
def test_any_ascii_text_is_spelled_and_never_unknown(tokenizer: T5Tokenizer, text: str) -> None:
    tokens = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in tokens
    spelled = tokenizer.decode(tokens, skip_special_tokens=True).replace(" ", "")
    assert spelled == text.replace(" ", "")


def test_text_is_padded_and_cut_to_the_context(tokenizer: T5Tokenizer) -> None:
    for text in ("", "a red circle", "word " * 100):
        found = tokenizer(text, padding="max_length", truncation=True)
        assert len(found.input_ids) == CONTEXT_LENGTH == tokenizer.model_max_length
        assert found.input_ids[sum(found.attention_mask) - 1] == tokenizer.eos_token_id


def test_learning_it_again_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    save_teacher_tokenizer(tmp_path, training_pairs(1000, 0, 2048).captions, CONTEXT_LENGTH)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_loaded_tokenizer_is_written_again_as_it_was_made(folder: Path, tmp_path: Path) -> None:
    load_teacher_tokenizer(folder).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()

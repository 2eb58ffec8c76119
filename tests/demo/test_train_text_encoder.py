import json
from pathlib import Path

import pytest
import torch
from transformers import T5Tokenizer

from sds_clip.demo import train_text_encoder as module
from sds_clip.demo.lessons import ShapeLessons
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.teacher import CONTEXT_LENGTH
from sds_clip.demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer, tokenize
from sds_clip.demo.train_text_encoder import TextRecipe, side_by_side, train_text_encoder

SHORT = TextRecipe(steps=5, batch_size=8, warmup_steps=2)
LESSONS = ShapeLessons(1000)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> T5Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_teacher_tokenizer(folder, training_pairs(1000, 0, 512).captions, CONTEXT_LENGTH)
    return load_teacher_tokenizer(folder)


def test_run_stopped_and_resumed_ends_where_a_whole_run_ends(
    tokenizer: T5Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_text_encoder(SHORT, tokenizer, LESSONS, tmp_path / "whole")
    step_of = module._train_step

    def stopping(*arguments: object) -> float:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return step_of(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_text_encoder(SHORT, tokenizer, LESSONS, tmp_path / "parts", save_every=2)
    resumed = train_text_encoder(SHORT, tokenizer, LESSONS, tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.long
def test_it_learns_to_tell_hidden_words(tokenizer: T5Tokenizer, tmp_path: Path) -> None:
    train_text_encoder(TextRecipe(steps=200, batch_size=16), tokenizer, LESSONS, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[1] < 0.9 * losses[0]


def test_word_order_changes_the_text_and_padding_does_not(tokenizer: T5Tokenizer, tmp_path: Path) -> None:
    encoder = train_text_encoder(SHORT, tokenizer, LESSONS, tmp_path)
    captions = ["a red circle above a blue star", "a blue star above a red circle"]
    tokens, mask = tokenize(tokenizer, captions)
    assert sorted(tokens[0].tolist()) == sorted(tokens[1].tolist())
    length = int(mask[0].sum())
    with torch.no_grad():
        padded = encoder(tokens, attention_mask=mask).last_hidden_state
        bare = encoder(tokens[:, :length]).last_hidden_state
    assert torch.allclose(padded[:, :length], bare, atol=1e-5)
    assert (bare[0].mean(dim=0) - bare[1].mean(dim=0)).abs().max() > 1e-3


def test_captions_of_an_image_stand_side_by_side(tokenizer: T5Tokenizer) -> None:
    ((one, other),) = LESSONS.captions(3, 1, 2)
    (tokens,), (mask,) = side_by_side(tokenizer, [(one, other)])
    assert tokenizer.decode(tokens) == f"{one}</s> {other}</s>"
    assert mask.all()

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import T5Tokenizer

from sds_clip.demo.render import render
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.teacher import CONTEXT_LENGTH, new_scheduler, new_vae
from sds_clip.demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer
from sds_clip.demo.teacher_validation import (
    LEVELS,
    TeacherValidation,
    in_memory,
    load_teacher_validation,
    main,
    match_scores,
)
from sds_clip.demo.train_teacher import encode
from sds_clip.demo.winoground_sets import WINOGROUND_SEED, winoground_items
from sds_clip.demo.world import Split

WORDS = [
    "red circle",
    "blue circle",
    "red star",
    "blue star",
    "red ring",
    "blue ring",
    "red bolt",
    "blue bolt",
]
KINDS = ["attributes", "attributes", "objects", "relation"]


class TokensAsText(nn.Module):
    """A text encoder whose embedding of a token is its id."""

    def forward(self, ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        return (ids[:, :, None].float(),)


class KnowsByHeart(nn.Module):
    """A denoiser that takes every caption for one certain picture, and computes its velocity exactly.

    Without a caption it expects an empty picture.
    """

    def __init__(self, tokenizer: T5Tokenizer, latents: Tensor) -> None:
        super().__init__()
        tokens = tokenizer([*WORDS, ""], padding="max_length").input_ids
        named = torch.cat([latents, torch.zeros_like(latents[:1])])
        self.latents = {tuple(ids): latent for ids, latent in zip(tokens, named, strict=True)}

    def forward(
        self, noisy: Tensor, encoder_hidden_states: Tensor, timestep: Tensor, **_: object
    ) -> tuple[Tensor]:
        named = [self.latents[tuple(text.int().flatten().tolist())] for text in encoder_hidden_states]
        abar = new_scheduler().alphas_cumprod[timestep].view(-1, 1, 1, 1)
        noise = (noisy - abar.sqrt() * torch.stack(named)) / (1 - abar).sqrt()
        return (abar.sqrt() * noise - (1 - abar).sqrt() * torch.stack(named),)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> T5Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    save_teacher_tokenizer(folder, training_pairs(1000, 0, 512).captions, CONTEXT_LENGTH)
    return load_teacher_tokenizer(folder)


@pytest.fixture
def validation() -> TeacherValidation:
    latents = torch.randn(8, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    return TeacherValidation(latents, WORDS, KINDS)


def scores_of(tokenizer: T5Tokenizer, named: Tensor, validation: TeacherValidation) -> dict[str, float]:
    knows = KnowsByHeart(tokenizer, named)
    return match_scores(in_memory(knows, TokensAsText(), tokenizer), validation, draws_each=2)


def test_item_counts_where_its_own_captions_denoise_its_pictures_better(
    tokenizer: T5Tokenizer, validation: TeacherValidation
) -> None:
    named = validation.latents.clone()
    named[2:4] = named[2:4].flip(0)  # the second item's captions name each other's picture
    named[5] += 10  # the third's second caption fits neither picture
    scores = scores_of(tokenizer, named, validation)
    assert {scores[f"attributes_match_{level}"] for level in LEVELS} == {0.5}
    assert scores["attributes_match"] == scores["attributes_group"] == 0.5
    assert scores["objects_group"] == 0.0
    assert scores["relation_match"] == scores["relation_group"] == 1.0


def test_denoiser_that_takes_no_notice_of_captions_scores_nothing(
    tokenizer: T5Tokenizer, validation: TeacherValidation
) -> None:
    # With noise of its own for each caption, half of the items would match.
    scores = scores_of(tokenizer, validation.latents[:1].expand(8, -1, -1, -1), validation)
    assert set(scores.values()) == {0.0}


@pytest.mark.parametrize(
    ("asked", "split", "seed"),
    [
        ({}, Split.VALIDATION, WINOGROUND_SEED),
        ({"split": Split.HELD_OUT, "seed": 7}, Split.HELD_OUT, 7),
    ],
)
def test_items_are_those_of_the_part_and_the_seed(asked: dict[str, Any], split: Split, seed: int) -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    validation = load_teacher_validation(vae, items_per_kind=2, **asked)
    items = winoground_items(split, 2, seed=seed)
    assert validation.kinds == [item.kind for item in items]
    assert validation.captions == [text for item in items for text in item.captions]
    pictures = torch.from_numpy(np.stack([render(scene) for scene in items[1].scenes]))
    assert torch.allclose(validation.latents[2:4], encode(vae, pictures), atol=1e-5)


@pytest.mark.long
def test_command_prints_a_row_for_each_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["teacher_validation", "demo", "--items", "4"])
    main()
    header, rule, *rows, chance = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[1] for row in rows] == ["attributes", "objects", "relation"]
    assert {line.count("|") for line in (header, rule, *rows, chance)} == {10}
    shares = [float(cell.rstrip("% |")) for row in rows for cell in row.split(" | ")[2:]]
    assert all(0 <= share <= 100 for share in shares)

from __future__ import annotations

import math

import pytest
import torch

from sds_clip.models.clip.scoring import match

IMAGES = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
TEXTS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]])
COSINES = torch.tensor([[0.0, 1.0, 0.8], [0.8, 0.6, 0.96]])


def test_softmax_runs_over_the_texts_and_for_texts_over_the_images() -> None:
    result = match(IMAGES, TEXTS, logit_scale=10.0, logit_bias=None)
    torch.testing.assert_close(result.scores, COSINES)
    torch.testing.assert_close(result.logits, 10 * COSINES)
    total = math.exp(0) + math.exp(10) + math.exp(8)
    assert result.probabilities[0, 1].item() == pytest.approx(math.exp(10) / total, rel=1e-5)
    assert result.text_probabilities[0, 1].item() == pytest.approx(math.exp(8) / (1 + math.exp(8)), rel=1e-5)
    torch.testing.assert_close(result.probabilities.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(result.text_probabilities.sum(dim=1), torch.ones(3))


def test_model_with_a_bias_gives_each_pair_its_sigmoid() -> None:
    result = match(IMAGES, TEXTS, logit_scale=10.0, logit_bias=-4.0)
    assert result.logits[1, 1].item() == pytest.approx(2.0)
    assert result.probabilities[1, 1].item() == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-5)
    assert torch.equal(result.text_probabilities, result.probabilities.T)


@pytest.mark.parametrize("logit_bias", [None, -10.0])
def test_no_images_or_no_texts_score_nothing(logit_bias: float | None) -> None:
    result = match(torch.zeros(0, 2), TEXTS, logit_scale=10.0, logit_bias=logit_bias)
    assert result.probabilities.shape == (0, 3)
    assert result.text_probabilities.shape == (3, 0)

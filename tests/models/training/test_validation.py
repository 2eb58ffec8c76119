import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet, Subset
from sds_clip.models.training.validation import validate


def test_every_pair_counts_once_beside_as_many_others_as_a_batch_has(base: Clip, pairs: PairSet) -> None:
    """Of 11 pairs the last 3 fill no batch of 4: they are measured among the last 4. In float64, pair by pair."""
    found = validate(base, Subset(pairs, range(11)), 4)
    pixels = torch.stack([base.preprocess(pairs.image(index)) for index in range(11)])
    image = base.encode_image(pixels).double()
    text = base.encode_text(base.tokenizer([pairs.sample(index).captions[0] for index in range(11)])).double()
    scores = image @ text.T
    losses, to_text, to_image = [], [], []
    for pair in range(11):
        others = torch.arange(0, 4) if pair < 4 else torch.arange(4, 8) if pair < 8 else torch.arange(7, 11)
        own = int((others == pair).nonzero())
        of_image, of_text = scores[pair, others], scores[others, pair]
        for row in (of_image, of_text):
            losses.append(-(base.logit_scale * row).log_softmax(dim=0)[own])
        to_text.append(float(of_image.argmax() == own))
        to_image.append(float(of_text.argmax() == own))
    assert found["validation_clip"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert found["validation_image_to_text"] == pytest.approx(sum(to_text) / 11)
    assert found["validation_text_to_image"] == pytest.approx(sum(to_image) / 11)


def test_whole_batches_have_open_clip_s_loss(base: Clip, pairs: PairSet) -> None:
    found = validate(base, Subset(pairs, range(8)), 4)
    pixels = torch.stack([base.preprocess(pairs.image(index)) for index in range(8)])
    image = base.encode_image(pixels)
    text = base.encode_text(base.tokenizer([pairs.sample(index).captions[0] for index in range(8)]))
    scale = torch.tensor(base.logit_scale)
    losses = [ClipLoss()(image[rows], text[rows], scale) for rows in (slice(0, 4), slice(4, 8))]
    assert found["validation_clip"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)


def test_whole_batches_of_a_siglip_have_open_clip_s_sigmoid_loss(sigmoid_base: Clip, pairs: PairSet) -> None:
    base, rows = sigmoid_base, [slice(0, 4), slice(4, 8)]
    found = validate(base, Subset(pairs, range(8)), 4)
    image = base.encode_image(torch.stack([base.preprocess(pairs.image(index)) for index in range(8)]))
    text = base.encode_text(base.tokenizer([pairs.sample(index).captions[0] for index in range(8)]))
    scale, bias = torch.tensor(base.logit_scale), torch.tensor(base.logit_bias)
    losses = [SigLipLoss()(image[each], text[each], scale, bias) for each in rows]
    assert found["validation_clip"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)


def test_a_batch_larger_than_what_is_validated_is_all_of_it(
    base: Clip, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.models.training.validation.MAX_PAIRS", 6)
    assert validate(base, Subset(pairs, range(11)), 8) == validate(base, Subset(pairs, range(6)), 6)


def test_fewer_pairs_than_a_batch_are_one_batch(base: Clip, pairs: PairSet) -> None:
    few = Subset(pairs, range(3))
    assert validate(base, few, 64) == validate(base, few, 3)


def test_what_goes_on_is_told_after_each_batch_and_may_end_it(base: Clip, pairs: PairSet) -> None:
    told: list[tuple[int, int]] = []
    validate(base, Subset(pairs, range(11)), 4, lambda done, total: told.append((done, total)))
    assert told == [(0, 11), (4, 11), (8, 11), (11, 11)]

    def end(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        validate(base, Subset(pairs, range(11)), 4, end)

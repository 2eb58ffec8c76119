import pytest
import torch
from open_clip.loss import ClipLoss

from models.clip import Clip
from models.data.pairs import PairSet, Subset
from models.training.validation import validate


def test_loss_and_retrieval_are_means_over_whole_batches(base: Clip, pairs: PairSet) -> None:
    found = validate(base, Subset(pairs, range(11)), 4)
    pixels = torch.stack([base.preprocess(pairs.image(index)) for index in range(8)])
    texts = base.tokenizer([pairs.sample(index).captions[0] for index in range(8)])
    losses, to_text, to_image = [], [], []
    for rows in (slice(0, 4), slice(4, 8)):
        image, text = base.encode_image(pixels[rows]), base.encode_text(texts[rows])
        losses.append(ClipLoss()(image, text, torch.tensor(base.logit_scale)))
        nearest = (image @ text.T).double()
        to_text.append((nearest.argmax(dim=1) == torch.arange(4)).double().mean())
        to_image.append((nearest.argmax(dim=0) == torch.arange(4)).double().mean())
    assert found["validation_clip"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert found["validation_image_to_text"] == pytest.approx(torch.stack(to_text).mean().item())
    assert found["validation_text_to_image"] == pytest.approx(torch.stack(to_image).mean().item())


def test_fewer_pairs_than_a_batch_are_one_batch(base: Clip, pairs: PairSet) -> None:
    few = Subset(pairs, range(3))
    assert validate(base, few, 64) == validate(base, few, 3)


def test_what_goes_on_is_told_after_each_batch_and_may_end_it(base: Clip, pairs: PairSet) -> None:
    told: list[int] = []
    validate(base, Subset(pairs, range(11)), 4, lambda: told.append(1))
    assert len(told) == 2

    def end() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        validate(base, Subset(pairs, range(11)), 4, end)

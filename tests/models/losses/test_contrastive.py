import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from scipy.special import log_softmax
from torch import Tensor

from sds_clip.models.losses.contrastive import contrastive_loss


def leaves(seed: int = 0) -> list[Tensor]:
    """Images, their texts, five negatives, and the scale."""
    generator = torch.Generator().manual_seed(seed)
    rows = [F.normalize(torch.randn(n, 6, generator=generator), dim=-1) for n in (4, 4, 5)]
    return [leaf.requires_grad_() for leaf in (*rows, torch.tensor(7.0))]


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


def test_loss_and_gradients_are_open_clips() -> None:
    image, text, _, scale = leaves()
    ours, theirs = contrastive_loss(image, text, scale), ClipLoss()(image, text, scale)
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(
        gradients(ours, [image, text, scale]), gradients(theirs, [image, text, scale]), strict=True
    ):
        torch.testing.assert_close(mine, expected)


BIAS = torch.tensor(-3.0, requires_grad=True)


def test_loss_and_gradients_with_a_bias_are_open_clips_sigmoid_loss() -> None:
    image, text, _, scale = leaves()
    leaf = [image, text, scale, BIAS]
    ours, theirs = (
        contrastive_loss(image, text, scale, logit_bias=BIAS),
        SigLipLoss()(image, text, scale, BIAS),
    )
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(gradients(ours, leaf), gradients(theirs, leaf), strict=True):
        torch.testing.assert_close(mine, expected)


def test_with_a_bias_each_negative_is_a_wrong_pair_with_each_image() -> None:
    image, text, negatives, scale = (rows.detach().double() for rows in leaves())
    texts = torch.cat([text, negatives]).numpy()
    logits = 7 * image.numpy() @ texts.T - 3
    logits[np.arange(4), np.arange(4)] *= -1  # -log sigmoid(z) = log(1 + exp(-z))
    expected = np.logaddexp(0, logits).sum() / 4
    found = contrastive_loss(image, text, scale, logit_bias=BIAS.detach().double(), negatives=negatives)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_negatives_are_further_columns_of_the_image_to_text_direction_only() -> None:
    image, text, negatives, scale = (leaf.detach() for leaf in leaves())
    f, g, h = (rows.double().numpy() for rows in (image, text, negatives))
    diagonal = np.arange(4)
    to_text = -log_softmax(7 * f @ np.concatenate([g, h]).T, axis=1)[diagonal, diagonal].mean()
    to_image = -log_softmax(7 * g @ f.T, axis=1)[diagonal, diagonal].mean()
    found = contrastive_loss(image, text, scale, negatives=negatives).item()
    assert found == pytest.approx((to_text + to_image) / 2, rel=1e-5)


def test_no_negatives_at_all_is_the_plain_loss() -> None:
    image, text, negatives, scale = leaves()
    torch.testing.assert_close(
        contrastive_loss(image, text, scale, negatives=negatives[:0]), contrastive_loss(image, text, scale)
    )


COUNTS = [None, (2, 3), (0, 4), (0, 0)]
"""How many negatives each of two processes holds."""
CASES = list(product(COUNTS, (None, BIAS)))


def _results(counts: tuple[int, int] | None, bias: Tensor | None, rank: int | None = None) -> list[Tensor]:
    """The loss and its gradients: of one process with everything, or of one that holds its part."""
    image, text, negatives, scale = leaves()
    rows = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    hard = None
    if counts is not None:
        hard = negatives[: sum(counts)]
        hard = hard if rank is None else hard.split(counts)[rank]
    loss = contrastive_loss(image[rows], text[rows], scale, logit_bias=bias, negatives=hard)
    wanted = [image, text, scale]
    wanted += [] if bias is None else [bias]
    wanted += [] if counts is None else [negatives]
    return [loss.detach(), *gradients(loss, wanted)]


def _process(rank: int, meeting: Path, out: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")  # a deprecated gather would say so in every run
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.save([_results(*case, rank) for case in CASES], out / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.long
def test_two_processes_with_half_the_batch_each_have_the_gradients_of_one(tmp_path: Path) -> None:
    mp.spawn(_process, (tmp_path / "meeting", tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for case, first, second in zip(CASES, *parts, strict=True):
        for one, two, expected in zip(first, second, _results(*case), strict=True):
            torch.testing.assert_close((one + two) / 2, expected)  # the mean, as DDP takes it

"""The terms against forgetting and the alignment of captions, against loops in float64, and in two processes."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from sds_clip.models.losses.forgetting import feature_distillation_loss, similarity_distillation_loss
from sds_clip.models.losses.paraphrase import paraphrase_loss

COUNTS = [(2, 3), (0, 4), (5, 0), (0, 0)]
"""How many images with two captions each of two processes holds."""
TERMS = ["features", "similarities", *COUNTS]


def leaves() -> list[Tensor]:
    """Images and texts, of the student and of the base, further captions, and the student's scale."""
    generator = torch.Generator().manual_seed(3)
    rows = [F.normalize(torch.randn(n, 6, generator=generator), dim=-1) for n in (4, 4, 4, 4, 5, 5)]
    return [leaf.requires_grad_() for leaf in (*rows, torch.tensor(7.0))]


def ours(term: str | tuple[int, int], of: list[Tensor], rank: int | None) -> Tensor:
    """The loss of one process with everything, or of one that holds its part."""
    image, text, base_image, base_text, caption, other, scale = of
    rows = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    image, text, base_image, base_text = image[rows], text[rows], base_image[rows], base_text[rows]
    if term == "features":
        return feature_distillation_loss(image, text, base_image.detach(), base_text.detach())
    if term == "similarities":
        return similarity_distillation_loss(image, text, scale, base_image, base_text, torch.tensor(5.0))
    assert not isinstance(term, str)
    caption, other = caption[: sum(term)], other[: sum(term)]
    if rank is not None:
        caption, other = caption.split(term)[rank], other.split(term)[rank]
    return paraphrase_loss(caption, other, scale)


def written_out(term: str | tuple[int, int], of: list[Tensor]) -> Tensor:
    image, text, base_image, base_text, caption, other, scale = of
    total = torch.zeros((), dtype=torch.float64)
    if term == "features":
        for place in range(4):
            total = total + sum((image[place, k] - base_image[place, k].detach()) ** 2 for k in range(6)) / 8
            total = total + sum((text[place, k] - base_text[place, k].detach()) ** 2 for k in range(6)) / 8
        return total
    if term == "similarities":
        for one, two, base_one, base_two in (
            (image, text, base_image, base_text),
            (text, image, base_text, base_image),
        ):
            for i in range(4):
                p = torch.stack([(5 * base_one[i] @ base_two[j]).detach().exp() for j in range(4)])
                q = torch.stack([(scale * one[i] @ two[j]).exp() for j in range(4)])
                total = (
                    total
                    + sum(p[j] / p.sum() * ((p[j] / p.sum()) / (q[j] / q.sum())).log() for j in range(4)) / 8
                )
        return total
    count = sum(term)  # type: ignore[arg-type]
    for one, two in ((caption, other), (other, caption)):
        for i in range(count):
            among = torch.stack([(scale * one[i] @ two[j]).exp() for j in range(count)])
            total = total - (among[i] / among.sum()).log() / (2 * count)
    return total + 0 * scale


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("term", TERMS)
def test_loss_and_gradients_are_the_formula_s_and_the_base_has_none(term: str | tuple[int, int]) -> None:
    of, exact = leaves(), [leaf.detach().double().requires_grad_() for leaf in leaves()]
    found, expected = ours(term, of, None), written_out(term, exact)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(gradients(found, of), gradients(expected, exact), strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-6)


def test_a_student_that_is_its_base_has_no_loss() -> None:
    image, text, *_ = leaves()
    assert feature_distillation_loss(image, text, image, text) == 0
    scale = torch.tensor(7.0)
    same = similarity_distillation_loss(image, text, scale, image, text, scale)
    assert same.item() == pytest.approx(0, abs=1e-6)


def _results(term: str | tuple[int, int], rank: int | None = None) -> list[Tensor]:
    of = leaves()
    loss = ours(term, of, rank)
    return [loss.detach(), *gradients(loss, of)]


def _process(rank: int, meeting: Path, out: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.save([_results(term, rank) for term in TERMS], out / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    mp.spawn(_process, (tmp_path / "meeting", tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for term, first, second in zip(TERMS, *parts, strict=True):
        for one, two, expected in zip(first, second, _results(term), strict=True):
            torch.testing.assert_close((one + two) / 2, expected, rtol=1e-4, atol=1e-6)

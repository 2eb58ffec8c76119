import pytest
import torch
from torch import Tensor, nn

from sds_clip.models.choices import Conflicts
from sds_clip.models.training.objective import Losses
from sds_clip.models.training.part import sub_batch
from sds_clip.models.training.trainer import Encoded, _backward


class Tower:
    """A layer that counts what it is given, and whether it keeps a graph of it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.seen: list[tuple[int, bool]] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        self.seen.append((len(inputs), torch.is_grad_enabled()))
        return self.layer(inputs).tanh()


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 4, 5, 9])
def test_the_gradient_is_the_whole_batch_s_in_chunks_of_any_size(chunk_size: int | None) -> None:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    plain, chunked = Tower(), Tower()
    features = plain(inputs)
    (features @ features.T).logsumexp(dim=1).sum().backward()
    encoded = Encoded(chunked, inputs, chunk_size)
    torch.testing.assert_close(encoded.features, features)
    (encoded.features @ encoded.features.T).logsumexp(dim=1).sum().backward()
    encoded.backward()
    assert plain.layer.weight.grad is not None
    torch.testing.assert_close(chunked.layer.weight.grad, plain.layer.weight.grad)


def test_one_chunk_is_encoded_once_and_several_twice_with_one_graph_at_a_time() -> None:
    one, several = Tower(), Tower()
    for tower, chunk_size in ((one, None), (several, 2)):
        encoded = Encoded(tower, torch.ones(5, 3), chunk_size)
        encoded.features.sum().backward()
        encoded.backward()
    assert one.seen == [(5, True)]
    assert several.seen == [(2, False), (2, False), (1, False), (2, True), (2, True), (1, True)]


def test_features_that_no_loss_has_used_and_frozen_towers_get_no_gradient() -> None:
    tower = Tower()
    Encoded(tower, torch.ones(2, 3), None).backward()
    assert tower.layer.weight.grad is None
    tower.layer.requires_grad_(False)
    encoded = Encoded(tower, torch.ones(2, 3), None)
    encoded.features.sum().backward()
    encoded.backward()
    assert tower.layer.weight.grad is None


def test_features_that_nothing_is_trained_behind_have_no_gradient() -> None:
    layer, inputs = nn.Linear(3, 3), torch.ones(2, 3)
    known = Encoded(lambda features: features, inputs, None, trained=False)
    (known.features * layer(inputs)).sum().backward()
    known.backward()
    assert known.features.grad is None
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("batch_size", "count", "world_size"), [(8, 4, 2), (12, 4, 4), (64, 8, 8), (6, 2, 2)]
)
def test_processes_take_the_sub_batch_that_one_would(batch_size: int, count: int, world_size: int) -> None:
    part = batch_size // world_size
    together = [
        rank * part + place for rank in range(world_size) for place in sub_batch(part, count // world_size)
    ]
    assert together == sub_batch(batch_size, count)


def gradients_of(
    contrastive: Tensor, teacher: Tensor, conflicts: Conflicts
) -> tuple[Tensor, dict[str, Tensor]]:
    """What two losses whose gradients are given leave on the image features, and what is logged of it."""
    features = torch.zeros_like(contrastive, requires_grad=True)
    losses = Losses((features * contrastive).sum(), (features * teacher).sum(), {})
    logged, _ = _backward(losses, features, conflicts)
    assert features.grad is not None
    return features.grad, logged


def test_gradients_are_compared_by_size_and_angle() -> None:
    contrastive, teacher = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 1.0], [0.0, -2.0]])
    total, logged = gradients_of(contrastive, teacher, "keep")
    assert torch.equal(total, contrastive + teacher)
    assert logged["teacher_gradient_share"].item() == pytest.approx(5**0.5 / 5)
    assert logged["teacher_gradient_cosine"].item() == pytest.approx(-8 / (5 * 5**0.5))


def test_conflicting_part_of_the_teacher_s_gradient_is_taken_away() -> None:
    contrastive, teacher = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 1.0], [0.0, -2.0]])
    total, logged = gradients_of(contrastive, teacher, "project")
    rest = total - contrastive
    assert (rest * contrastive).sum().item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(rest, teacher + 8 / 25 * contrastive)
    assert logged["teacher_gradient_cosine"] < 0  # as it was


def test_gradients_that_agree_are_kept() -> None:
    contrastive, teacher = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 5.0]])
    total, _ = gradients_of(contrastive, teacher, "project")
    assert torch.equal(total, contrastive + teacher)

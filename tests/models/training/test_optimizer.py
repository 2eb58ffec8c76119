import math

import pytest
import torch
from torch import nn

from models.training.optimizer import gradient_norm, make_optimizer, rate_share, set_learning_rate
from tests.training import configure


def test_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    shares = [rate_share(step, 10, 4) for step in range(10)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == pytest.approx([(1 + math.cos(math.pi * part / 6)) / 2 for part in range(1, 6)])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 50), (3, 50)])
def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak(steps: int, warmup: int) -> None:
    shares = [rate_share(step, steps, warmup) for step in range(steps)]
    assert shares[-1] == 1
    assert all(share > 0 for share in shares)


def test_only_matrices_of_the_student_decay() -> None:
    student = {
        name: nn.Parameter(torch.ones(shape))
        for name, shape in {
            "visual.proj": (2, 2),
            "positional_embedding": (2, 2),
            "token_embedding.weight": (2, 2),
            "ln_final.weight": (2,),
            "logit_scale": (),
        }.items()
    }
    mapper = {"linear.weight": nn.Parameter(torch.ones(2, 2))}
    optimizer = make_optimizer(student, mapper, configure(weight_decay=0.5))
    for value in (*student.values(), *mapper.values()):
        value.grad = torch.zeros_like(value)
    optimizer.step()
    moved = {name for name, value in {**student, **mapper}.items() if not torch.equal(value, value * 0 + 1)}
    assert moved == {"visual.proj"}


def test_student_and_mapper_have_rates_of_their_own() -> None:
    student, mapper = {"ln.weight": nn.Parameter(torch.ones(2))}, {"bias": nn.Parameter(torch.ones(2))}
    config = configure(lr=0.1, mapper_lr=0.01, warmup_steps=1)
    optimizer = make_optimizer(student, mapper, config)
    set_learning_rate(optimizer, config, step=0, steps=4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005])


def test_the_mapper_s_pace_does_not_depend_on_the_size_of_its_gradient() -> None:
    moved = []
    for scale in (1e-8, 1e-5):
        weight = nn.Parameter(torch.zeros(3))
        optimizer = make_optimizer({}, {"linear.weight": weight}, configure(mapper_lr=0.01))
        set_learning_rate(optimizer, configure(mapper_lr=0.01, warmup_steps=0), step=0, steps=4)
        weight.grad = scale * torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()
        moved.append(weight.detach().clone())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=0)


def test_norm_is_over_all_gradients_and_none_counts_as_zero() -> None:
    one, two, unreached = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert gradient_norm([one, two, unreached]).item() == pytest.approx(5)

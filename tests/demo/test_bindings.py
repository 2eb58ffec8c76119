import pytest
import torch

from sds_clip.demo.bindings import Probe, Residuals
from sds_clip.demo.training_set import DemoPairs
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.teacher.load import load_teacher


def test_gap_is_in_percent_of_the_own_residual_with_its_standard_error() -> None:
    own = torch.tensor([1.0, 3.0])
    found = Residuals(0.0, own, own + torch.tensor([1.0, 2.0]), own)
    # Of a mean of 2: 50 and 100 %.
    assert found.gap(found.other) == pytest.approx((75.0, 25.0))
    assert found.gap(found.swapped) == (0.0, 0.0)


@pytest.mark.long
def test_real_latents_hold_words_and_bindings_and_so_do_those_of_the_demo_clip() -> None:
    teacher = load_teacher("demo", device="cpu", precision="float32", vae=True)
    base = load_clip("demo", device="cpu", precision="float32")
    probe = Probe(teacher, base, count=96)
    real, made = probe.real(), probe.of(base, DemoPairs(768))
    assert real.r2 == 1
    assert 0 < made.r2 < 0.5
    (words, _), (bindings, error) = real.gap(real.other), real.gap(real.swapped)
    assert words > bindings > 2 * error
    (words, words_error), (bindings, error) = made.gap(made.other), made.gap(made.swapped)
    assert words > 4 * words_error
    assert bindings > 2 * error

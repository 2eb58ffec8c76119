"""Memory that networks share, counted."""

from pathlib import Path

import pytest
from torch import nn

from sds_clip.models.checkpoints.delta import apply_delta, lay_over
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.sharing import HeldNetworks, bytes_apart, storages
from tests.deltas import save_tuned


def test_networks_count_what_is_theirs_alone() -> None:
    one, other = nn.Linear(3, 2, bias=False), nn.Linear(3, 2)
    tied = nn.Linear(3, 2)
    tied.weight = one.weight
    assert sum(storages(other).values()) == 4 * (6 + 2)
    assert bytes_apart([one], [other]) == 4 * 6
    assert bytes_apart([tied], [one]) == 4 * 2
    assert bytes_apart([one, tied], []) == 4 * (6 + 2)
    assert bytes_apart([one, one], []) == 4 * 6


def test_networks_come_and_go() -> None:
    one, tied, other = nn.Linear(3, 2, bias=False), nn.Linear(3, 2), nn.Linear(5, 2, bias=False)
    tied.weight = one.weight
    held = HeldNetworks()
    for network in (one, tied, other):
        held.add(network)
    assert held.bytes_apart([]) == 4 * (6 + 2 + 10)
    held.remove(one)
    assert held.bytes_apart([]) == 4 * (6 + 2 + 10)
    assert held.bytes_apart([one, other]) == 4 * 2
    held.remove(tied)
    assert held.bytes_apart([one]) == 4 * 10
    held.remove(other)
    assert held.bytes_apart([]) == 0


def test_part_of_a_tensor_keeps_the_whole_of_it_in_memory() -> None:
    whole, part = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)
    part.weight = nn.Parameter(whole.weight[:2])
    assert bytes_apart([part], []) == 4 * 16
    assert bytes_apart([part], [whole]) == 0


def test_delta_laid_over_its_base_takes_the_bytes_of_what_changed(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="bfloat16")
    folder = save_tuned(tmp_path / "delta", load_clip(f"local-dir:{tiny_folder}", precision="float32"))
    delta = read_delta(folder)
    clip = lay_over(base, delta)
    assert bytes_apart([clip.network], [base.network]) == sum(
        value.nbytes for value in delta.tensors.values()
    )
    assert clip.version == apply_delta(base, folder).version == delta.about.version


@pytest.mark.slow
def test_layer_norm_delta_of_vit_b_32_takes_less_than_one_percent(
    vit_b_32_folder: Path, tmp_path: Path
) -> None:
    base = load_clip(f"local-dir:{vit_b_32_folder}", device="cpu", precision="float32")
    delta = read_delta(save_tuned(tmp_path / "delta", base))
    clip = lay_over(base, delta)
    apart = bytes_apart([clip.network], [base.network])
    assert apart == 65_536 * 4
    assert apart < 0.01 * sum(storages(clip.network).values())

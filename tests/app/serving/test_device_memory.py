"""The memory of GPUs as a service exports it."""

import pytest
import torch

from sds_clip.app.serving.device_memory import device_memory


def test_cpu_has_no_gauge() -> None:
    assert device_memory([torch.device("cpu")]) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_has_what_this_process_holds_and_what_is_left() -> None:
    device = torch.device("cuda:0")
    held = torch.zeros(2**20, dtype=torch.uint8, device=device)
    (family,) = device_memory([device])
    sizes = {sample.labels["state"]: sample.value for sample in family.samples}
    assert {sample.labels["device"] for sample in family.samples} == {"cuda:0"}
    assert held.numel() <= sizes["allocated"] <= sizes["reserved"] <= sizes["total"]
    assert 0 < sizes["free"] < sizes["total"]

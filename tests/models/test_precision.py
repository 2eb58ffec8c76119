from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.attention import BatchFirstAttention, attend_batch_first
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.precision import (
    PrecisionError,
    apply_precision,
    choose_device,
    choose_precision,
    is_norm,
    limit_memory,
    native_bf16,
    use_threads,
)
from tests.checkpoints import tiny_network

CPU = torch.device("cpu")


def norm_parameters(network: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": value
        for prefix, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, value in module.named_parameters()
    }


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs Linux's list of processor features")
def test_auto_is_bfloat16_where_the_processor_computes_in_it() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert native_bf16() == bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    assert choose_precision("auto", CPU) == ("bfloat16" if native_bf16() else "float32")


@pytest.mark.parametrize(
    ("capability", "hip", "meant"),
    [
        ((7, 5), None, "float32"),
        ((8, 0), None, "bfloat16"),
        ((12, 0), None, "bfloat16"),
        ((7, 5), "6.4", "bfloat16"),
    ],
)
def test_auto_on_a_gpu_is_bfloat16_where_it_is_not_emulated(
    capability: tuple[int, int], hip: str | None, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert choose_precision("auto", torch.device("cuda", 0)) == meant


@pytest.mark.parametrize(
    ("name", "meant"), [("bf16", "bfloat16"), ("fp32", "float32"), ("float32", "float32")]
)
def test_short_names_are_understood(name: str, meant: str) -> None:
    assert choose_precision(name, CPU) == meant


@pytest.mark.parametrize("name", ["int8", "float16", ""])
def test_precision_that_cannot_be_had_is_refused(name: str) -> None:
    with pytest.raises(PrecisionError, match="float32"):
        choose_precision(name, CPU)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", "cpu:1", ""])
def test_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(PrecisionError, match=repr(name)):
        choose_device(name)


def test_layer_norms_keep_the_checkpoints_float32_parameters(tiny_folder: Path) -> None:
    stored = load_file(tiny_folder / "open_clip_model.safetensors")
    clip = load_clip(f"local-dir:{tiny_folder}", precision="bfloat16")
    norms = norm_parameters(clip.network)
    assert len(norms) == 2 * (4 * 2 + 3)  # two a block, two blocks a tower; ln_pre, ln_post and ln_final
    for name, value in norms.items():
        assert value.dtype is torch.float32
        assert torch.equal(value, stored[name])
    others = {name: value for name, value in clip.network.named_parameters() if name not in norms}
    assert others.pop("logit_scale").dtype is torch.float32
    assert {value.dtype for value in others.values()} == {torch.bfloat16}


def test_parameters_keep_their_names_and_identity() -> None:
    network = tiny_network()
    before = dict(network.named_parameters())
    apply_precision(attend_batch_first(network), "bfloat16")
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_bfloat16_equals_open_clips_own(tiny_folder: Path) -> None:
    clip = load_clip(f"local-dir:{tiny_folder}", precision="bfloat16")
    theirs = open_clip.create_model(f"local-dir:{tiny_folder}", precision="bf16").eval()
    pixels, tokens = torch.randn(4, 3, 32, 32), clip.tokenizer(["a cat", "a red ball", "x", ""])
    with torch.no_grad():
        images, texts = theirs.encode_image(pixels.bfloat16()), theirs.encode_text(tokens)
    for ours, other in ((clip.encode_image(pixels), images), (clip.encode_text(tokens), texts)):
        assert torch.cosine_similarity(ours, other.float()).min() > 0.9998


def test_bfloat16_stays_near_float32(tiny_folder: Path, siglip_folder: Path) -> None:
    for folder, size in ((tiny_folder, 32), (siglip_folder, 160)):
        exact, lower = (load_clip(f"local-dir:{folder}", precision=p) for p in ("float32", "bfloat16"))
        pixels, tokens = torch.randn(4, 3, size, size), exact.tokenizer(["a cat", "a red ball", "x", ""])
        assert torch.cosine_similarity(exact.encode_image(pixels), lower.encode_image(pixels)).min() > 0.999
        assert torch.cosine_similarity(exact.encode_text(tokens), lower.encode_text(tokens)).min() > 0.999


# A small change of LayerNorms, in the shipped model

RELATIVE_CHANGE = 1.8e-3
"""Under half of bfloat16's spacing anywhere (2**-9 = 1.95e-3): rounding a changed value gives the old one."""


def pictures(size: tuple[int, int]) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    coarse = torch.randn(512, 3, 4, 4, generator=draw)
    return 1.5 * nn.functional.interpolate(coarse, size=size, mode="bicubic")


def step_direction(clip: Clip, pixels: Tensor) -> dict[str, Tensor]:
    """Up or down for each LayerNorm parameter of the image tower, as a training step would choose it."""
    norms = {name: value for name, value in norm_parameters(clip.network).items() if "visual" in name}
    for value in norms.values():
        value.requires_grad_()
    features = clip.network.encode_image(pixels[:64], normalize=True)
    goal = torch.randn(clip.embed_dim, generator=torch.Generator().manual_seed(3))
    gradients = torch.autograd.grad((features @ goal).mean(), list(norms.values()))
    for value in norms.values():
        value.requires_grad_(False)
    return {name: gradient.sign() for name, gradient in zip(norms, gradients, strict=True)}


def mean_shift(
    precision: str, direction: dict[str, Tensor], *, norms_in: torch.dtype = torch.float32
) -> Tensor:
    """How a small step of the LayerNorms moves the image embeddings, averaged over images."""
    clip = load_clip("demo", precision=precision)
    pixels = pictures(clip.image_size)
    norms = norm_parameters(clip.network)
    base = {name: norms[name].bfloat16().float() for name in direction}
    clip.network.load_state_dict(base, strict=False)
    before = clip.encode_image(pixels)
    after = {
        name: (value * (1 + RELATIVE_CHANGE * direction[name] * value.sign())).to(norms_in).float()
        for name, value in base.items()
    }
    clip.network.load_state_dict(after, strict=False)
    return (clip.encode_image(pixels) - before).mean(dim=0)


def test_small_layer_norm_change_moves_bfloat16_as_it_moves_float32() -> None:
    clip = load_clip("demo", precision="float32")
    direction = step_direction(clip, pictures(clip.image_size))
    exact, lower = mean_shift("float32", direction), mean_shift("bfloat16", direction)
    assert torch.cosine_similarity(exact, lower, dim=0) > 0.98
    assert 0.9 < (lower.norm() / exact.norm()).item() < 1.1
    lost = mean_shift("bfloat16", direction, norms_in=torch.bfloat16)
    assert lost.norm() == 0  # had the LayerNorms been stored in bfloat16, nothing would have moved


# Layers that torch cannot mix


class NamedRMSNorm(nn.Module):
    """A norm that is torch's neither by type nor by habit: it multiplies by its weight as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.001))

    def forward(self, x: Tensor) -> Tensor:
        return x * x.pow(2).mean(dim=-1, keepdim=True).rsqrt() * self.weight


@pytest.mark.parametrize(
    "norm", [NamedRMSNorm(8), nn.BatchNorm1d(8), nn.GroupNorm(2, 8)], ids=["named", "batch", "group"]
)
def test_other_norms_compute_in_float32_between_bfloat16_layers(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(8, 8), norm, nn.Linear(8, 8)).eval()
    exact = network(torch.ones(2, 8))
    assert is_norm(norm)
    apply_precision(network, "bfloat16")
    assert {value.dtype for value in norm.parameters()} == {torch.float32}
    torch.testing.assert_close(network(torch.ones(2, 8).bfloat16()).float(), exact, atol=0.03, rtol=0.03)


def test_copied_network_computes_with_its_own_norms() -> None:
    network = nn.Sequential(nn.Linear(8, 8), NamedRMSNorm(8)).eval()
    apply_precision(network, "bfloat16")
    copy = deepcopy(network)
    nn.init.zeros_(copy[1].weight)
    assert copy(torch.ones(1, 8).bfloat16()).abs().max() == 0
    assert network(torch.ones(1, 8).bfloat16()).abs().max() > 0


# Attention


@pytest.mark.parametrize("masked", [False, True])
def test_batch_first_attention_equals_torchs(masked: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    ours = deepcopy(theirs)
    attend_batch_first(ours)
    assert isinstance(ours, BatchFirstAttention)
    x = torch.randn(3, 5, 16)
    mask = torch.full((5, 5), float("-inf")).triu(1) if masked else None
    expected = theirs(x, x, x, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(ours(x, x, x, need_weights=False, attn_mask=mask)[0], expected)
    with_weights = ours(x, x, x, attn_mask=mask)
    torch.testing.assert_close(with_weights[0], expected)
    assert with_weights[1].shape == (3, 5, 5)


def test_a_share_of_memory_is_of_a_gpu_that_is_here() -> None:
    limit_memory("cpu", 0.5)
    with pytest.raises(PrecisionError, match="cuda:99"):
        limit_memory("cuda:99", 0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_more_than_the_share_of_a_gpu_s_memory_is_refused() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    limit_memory("cuda", 0.1)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(total // 5, dtype=torch.uint8, device="cuda")
    finally:
        limit_memory("cuda", 1.0)


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [("OMP_DYNAMIC", "true", "Unset it"), ("OMP_THREAD_LIMIT", "0002", "set OMP_NUM_THREADS to as few")],
)
def test_threads_that_openmp_may_not_start_are_refused_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, advice: str
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv(variable, value)
    try:
        torch.set_num_threads(3)
        with pytest.raises(PrecisionError, match=f"{variable} .*{advice}"):
            choose_precision("float32", torch.device("cpu"))
        assert choose_precision("float32", torch.device("cuda")) == "float32"
    finally:
        torch.set_num_threads(threads)


def test_service_s_threads_are_as_many_as_openmp_may_start(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_THREAD_LIMIT", "2")
    try:
        use_threads(16)
        assert torch.get_num_threads() == 2
        assert choose_precision("float32", torch.device("cpu")) == "float32"
        monkeypatch.setenv("OMP_THREAD_LIMIT", "no number")  # OpenMP ignores it too
        use_threads(3)
        assert torch.get_num_threads() == 3
        assert choose_precision("float32", torch.device("cpu")) == "float32"
    finally:
        torch.set_num_threads(threads)

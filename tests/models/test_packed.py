"""Packed weights, against the same weights as they are."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sds_clip.models.checkpoints.delta import apply_delta, lay_over, save_delta
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip import packed
from sds_clip.models.clip.mixed import Member, as_member, encode_images, encode_texts, family_of
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import pack, to_serve
from sds_clip.models.clip.sharing import bytes_apart, packs
from sds_clip.models.clip.text_map import fold
from sds_clip.models.clip.version import as_stored, stored
from sds_clip.models.images.decode import ImageLimits
from sds_clip.models.vectors.clip_encoder import ClipEncoder
from tests.checkpoints import save_resnet, save_siglip, save_tiny_clip
from tests.deltas import save_tuned, tuned_copy

TEXTS = ["a red cube", "two dogs", "", "a blue ball left of a red cube"]
HISTORY: dict[str, dict[str, str]] = {"configuration": {}, "data": {}, "metrics": {}}
SAVE: dict[str, Callable[[Path], Path]] = {
    "clip": save_tiny_clip,
    "quick_gelu": lambda folder: save_tiny_clip(folder, quick_gelu=True),
    "siglip": save_siglip,
    "resnet": save_resnet,
}

pytestmark = pytest.mark.skipif(
    not packed._can_pack(torch.float32), reason="torch cannot pack weights on this machine"
)


@pytest.fixture(scope="module", params=SAVE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVE[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=["clip", "siglip"])
def base_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVE[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def chosen_again() -> Iterator[None]:
    """Whether weights can be packed is found out once in a process."""
    packed._can_pack.cache_clear()
    yield
    packed._can_pack.cache_clear()


def load(folder: Path, precision: str) -> Clip:
    return load_clip(f"local-dir:{folder}", device="cpu", precision=precision)


def pixels_of(clip: Clip, count: int) -> Tensor:
    return torch.randn(count, 3, *clip.image_size, generator=torch.Generator().manual_seed(7))


def features_of(clip: Clip) -> Tensor:
    return torch.cat([clip.encode_image(pixels_of(clip, 4)), clip.encode_text(clip.tokenizer(TEXTS))])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_weights_give_the_same_features(folder: Path, precision: str) -> None:
    """In bfloat16 to the last bit, so that they are as near to float32 as before."""
    plain = load(folder, precision)
    ours, theirs = features_of(pack(plain)), features_of(plain)
    if precision == "bfloat16":
        assert torch.equal(ours, theirs)
    else:
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
        scores = [features[:4] @ features[4:].T for features in (ours, theirs)]
        torch.testing.assert_close(*scores, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_vit_b_32_gives_the_same_features(vit_b_32_folder: Path, precision: str) -> None:
    plain = load(vit_b_32_folder, precision)
    atol = 0 if precision == "bfloat16" else 1e-6
    torch.testing.assert_close(features_of(pack(plain)), features_of(plain), atol=atol, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_image_alone_and_in_a_batch_has_the_same_features(folder: Path, precision: str) -> None:
    clip = pack(load(folder, precision))
    pixels = pixels_of(clip, 9)
    alone = torch.cat([clip.encode_image(image[None]) for image in pixels])
    torch.testing.assert_close(
        clip.encode_image(pixels), alone, atol=0 if precision == "bfloat16" else 1e-6, rtol=0
    )


def test_number_of_threads_changes_no_score(folder: Path) -> None:
    clip, before = pack(load(folder, "float32")), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(features_of(clip))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


def test_thread_that_did_not_pack_computes_with_the_packs(folder: Path) -> None:
    clip = pack(load(folder, "float32"))
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(features_of(clip)))
    thread.start()
    thread.join()
    torch.testing.assert_close(found[0], features_of(clip), atol=1e-6, rtol=0)


def test_packing_leaves_the_network_that_it_was_given_as_it_was(folder: Path) -> None:
    """Evaluation and training compute with that one, to the last bit."""
    plain = load(folder, "float32")
    before, kinds = features_of(plain), [type(module) for module in plain.network.modules()]
    hashes = {name: stored(value) for name, value in as_stored(plain.network, {})}
    ours = pack(plain)
    assert torch.equal(features_of(plain), before)
    assert [type(module) for module in plain.network.modules()] == kinds
    for network in (plain.network, ours.network):
        assert {name: stored(value) for name, value in as_stored(network, {})} == hashes
    assert (ours.version, ours.identity) == (plain.version, plain.identity)


def test_packing_twice_changes_nothing(folder: Path) -> None:
    once = pack(load(folder, "float32"))
    twice = pack(once)
    assert torch.equal(features_of(once), features_of(twice))
    assert (twice.size_bytes, packs(twice.network)) == (once.size_bytes, packs(once.network))


def test_memory_grows_by_the_packs_alone(tmp_path: Path) -> None:
    plain = load(save_tiny_clip(tmp_path / "clip"), "float32")
    before = bytes_apart([plain.network], [])
    ours = pack(plain)
    products = sum(
        value.nbytes
        for name, value in plain.network.named_parameters()
        if "mlp" in name or "attn" in name
        if value.dim() == 2
    )
    assert sum(packs(ours.network).values()) == products
    assert bytes_apart([ours.network], []) == before + products
    assert ours.size_bytes == plain.size_bytes + products
    assert ours.packed
    assert not plain.packed


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_served_model_takes_the_memory_of_its_packs_in_place_of_its_weights(
    base_folder: Path, precision: str
) -> None:
    plain = load(base_folder, precision)
    before, hashes = features_of(plain), {name: stored(value) for name, value in as_stored(plain.network, {})}
    served = to_serve(plain)
    assert isinstance(served.network, Member)
    found = packs(served.network.family.base)
    norms = served.network.norms.nbytes  # those of a version are its own
    placeholders = len(found) * (2 if precision == "bfloat16" else 4)
    assert placeholders
    assert bytes_apart([served.network], []) - norms == bytes_apart([plain.network], []) + placeholders
    assert served.size_bytes == plain.size_bytes + placeholders
    atol = 0 if precision == "bfloat16" else 1e-6
    torch.testing.assert_close(features_of(served), before, atol=atol, rtol=0)
    assert torch.equal(features_of(plain), before)
    assert {name: stored(value) for name, value in as_stored(plain.network, {})} == hashes


def test_weights_that_are_packed_are_freed_with_the_clip_that_was_loaded(tmp_path: Path) -> None:
    plain = load(save_tiny_clip(tmp_path / "clip"), "float32")
    given = weakref.ref(plain.network.get_parameter("visual.transformer.resblocks.0.mlp.c_fc.weight"))
    served = to_serve(plain)
    assert given() is not None
    del plain
    gc.collect()
    assert served.packed
    assert given() is None


class _ReadsWeights(nn.Module):
    """A layer of another library, which takes the weights of its products itself."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        first, activation, last = self.layers
        x = activation(F.linear(x, first.weight, first.bias))
        return F.linear(x, last.weight, last.bias)


def test_network_that_reads_its_weights_itself_is_served_with_both(tmp_path: Path) -> None:
    plain = load(save_tiny_clip(tmp_path / "clip"), "bfloat16")
    blocks: Any = plain.network.visual.transformer.resblocks  # type: ignore[union-attr]
    blocks[0].mlp = _ReadsWeights(blocks[0].mlp)
    served = to_serve(plain)
    assert served.packed
    assert served.size_bytes > plain.size_bytes
    assert torch.equal(features_of(served), features_of(plain))


def test_packs_go_when_their_version_does(tmp_path: Path) -> None:
    clip = to_serve(load(save_tiny_clip(tmp_path / "clip"), "float32"))
    assert isinstance(clip.network, Member)
    found: list[Any] = list(clip.network.family.base.parameters())
    gone = [weakref.ref(parameter.packed) for parameter in found if hasattr(parameter, "packed")]
    assert gone
    del clip, found
    gc.collect()
    assert {each() for each in gone} == {None}


def test_folder_is_embedded_with_packs_and_a_query_without(tmp_path: Path) -> None:
    """A query alone would wait longer for the packs than for its answer."""
    clip = load(save_tiny_clip(tmp_path / "clip"), "float32")
    encoder, pixels = ClipEncoder(clip, ImageLimits()), pixels_of(clip, 3)
    encoder.encode_text("a red cube")
    assert not packs(clip.network)
    rows = torch.from_numpy(np.stack(encoder.encode(list(pixels))))
    assert packs(clip.network)
    torch.testing.assert_close(rows, clip.encode_image(pixels), atol=1e-6, rtol=0)


# Versions over a packed base.


@pytest.fixture(scope="module")
def deltas(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions that differ in LayerNorms, and one with another text projection."""
    base, made = load(base_folder, "float32"), tmp_path_factory.mktemp("deltas")
    mapped = tuned_copy(base, seed=2)
    width = base.embed_dim
    fold(
        mapped, torch.eye(width) + 0.1 * torch.randn(width, width, generator=torch.Generator().manual_seed(1))
    )
    tuned = [save_tuned(made / str(seed), base, seed=seed) for seed in range(2)]
    return [*tuned, save_delta(made / "map", base, mapped, **HISTORY)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_versions_over_a_packed_base_share_its_packs_and_its_batches(
    base_folder: Path, deltas: list[Path], precision: str
) -> None:
    base = to_serve(load(base_folder, precision))
    clips = [base, *(to_serve(lay_over(base, read_delta(delta))) for delta in deltas)]
    assert {family_of(clip) for clip in clips} == {family_of(base)}
    assert all(isinstance(clip.network, Member) and clip.packed for clip in clips)
    apart = bytes_apart([clip.network for clip in clips[1:3]], [base.network])
    assert apart == 2 * base.network.norms.nbytes
    plain = load(base_folder, precision)
    for clip, theirs in zip(clips, [plain, *(apply_delta(plain, delta) for delta in deltas)], strict=True):
        torch.testing.assert_close(
            features_of(clip), features_of(theirs), atol=0 if precision == "bfloat16" else 1e-6, rtol=0
        )
    unpacked = as_member(plain)
    members = [unpacked, *(lay_over(unpacked, read_delta(delta)) for delta in deltas)]
    pixels, tokens = pixels_of(base, 4), base.tokenizer(TEXTS)
    for mixed, before in (
        (encode_images(clips, pixels), encode_images(members, pixels)),
        (encode_texts(clips, tokens), encode_texts(members, tokens)),
    ):
        atol, rtol = (0.0, 0.0) if precision == "bfloat16" else (1e-5, 1e-5)  # they are not normalised
        torch.testing.assert_close(mixed, before, atol=atol, rtol=rtol)


def test_version_with_other_products_is_not_computed_with_the_packs_of_its_base(
    base_folder: Path, tmp_path: Path
) -> None:
    plain = load(base_folder, "float32")
    tuned = tuned_copy(plain, seed=9, trained=lambda module: isinstance(module, nn.Linear))
    folder = save_delta(tmp_path / "delta", plain, tuned, **HISTORY)
    base = to_serve(load(base_folder, "float32"))
    laid = lay_over(base, read_delta(folder))
    own = to_serve(laid)
    for clip in (laid, own):
        torch.testing.assert_close(
            features_of(clip), features_of(apply_delta(plain, folder)), atol=1e-6, rtol=0
        )
    assert own.packed
    assert isinstance(own.network, Member)
    assert family_of(own) is not family_of(base)
    assert packs(own.network.family.base).keys() - packs(base.network.family.base).keys()


# Where it is not possible.


def _with_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())


def _on_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")


@pytest.mark.parametrize("otherwise", [_with_another_torch, _on_another_processor])
@pytest.mark.usefixtures("chosen_again")
def test_where_torch_cannot_pack_the_model_stays_as_it_is_and_the_log_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    otherwise: Callable[[pytest.MonkeyPatch], None],
) -> None:
    plain = load(save_tiny_clip(tmp_path / "clip"), "float32")
    otherwise(monkeypatch)
    caplog.set_level("INFO")
    assert pack(plain) is pack(plain) is plain
    [line] = [record.getMessage() for record in caplog.records if record.name == packed.__name__]
    assert line.startswith("Weights in torch.float32 are not packed: ")


@pytest.mark.filterwarnings("ignore:TF32")  # torch's own, when it restores its flags
@pytest.mark.usefixtures("chosen_again")
def test_where_one_dnn_is_switched_off_the_model_stays_as_it_is(tmp_path: Path) -> None:
    plain = load(save_tiny_clip(tmp_path / "clip"), "float32")
    with torch.backends.mkldnn.flags(enabled=False):
        assert pack(plain) is plain


def test_network_that_cannot_be_copied_stays_as_it_is(tmp_path: Path) -> None:
    plain = load(save_tiny_clip(tmp_path / "clip"), "float32")
    plain.network.lock = threading.Lock()  # type: ignore[assignment]
    assert pack(plain) is plain

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sds_clip.models.checkpoints.delta import apply_delta, save_delta
from sds_clip.models.checkpoints.delta_file import DeltaError, read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import BadReferenceError
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from tests.checkpoints import save_resnet, save_tiny_clip
from tests.deltas import save_tuned, tuned_copy

TENSORS = "delta.safetensors"
DESCRIPTION = "sds_clip_delta.json"
TEXTS = ["a red cube", "two dogs", ""]
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))
HISTORY: dict[str, dict[str, Any]] = {"configuration": {}, "data": {}, "metrics": {}}


@pytest.fixture(scope="module")
def base(tiny_folder: Path) -> Clip:
    return load_clip(f"local-dir:{tiny_folder}", precision="float32")


@pytest.fixture
def folder(base: Clip, tmp_path: Path) -> Path:
    return save_tuned(tmp_path / "delta", base)


def embeddings(clip: Clip) -> tuple[Tensor, Tensor]:
    return clip.encode_image(PIXELS), clip.encode_text(clip.tokenizer(TEXTS))


def assert_same_embeddings(one: Clip, other: Clip) -> None:
    for ours, theirs in zip(embeddings(one), embeddings(other), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def edit_description(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    change(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        load_clip(f"local-dir:{folder}", precision="float32")
    return str(refused.value)


# Saving


def test_delta_holds_what_was_trained_bit_for_bit_and_nothing_else(base: Clip, folder: Path) -> None:
    tuned = tuned_copy(base)
    trained = {
        f"{prefix}.{name}": value
        for prefix, module in tuned.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, value in module.named_parameters()
    }
    stored = load_file(folder / TENSORS)
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[name], value) for name, value in trained.items())
    assert all(value.dtype is torch.float32 for value in stored.values())


def test_description_says_what_it_is_over_and_how_it_came_about(base: Clip, folder: Path) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    assert content["format"] == 1
    assert content["base"] == {
        "reference": base.reference,
        "version": base.version,
        "architecture": "tiny",
        "quick_gelu": False,
    }
    assert content["version"] == load_clip(str(folder)).version
    assert content["trained"] == sorted(load_file(folder / TENSORS))
    assert (content["configuration"]["lambda"], content["metrics"]) == (0.5, {"group": 0.25})
    assert content["preprocess"]["resize_mode"] == "shortest"
    assert (content["tokenizer"], content["context_length"]) == ("clip", 77)


def test_relative_reference_of_the_base_is_kept_absolute(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    folder = save_tuned(tmp_path / "delta", load_clip("./tiny", precision="float32"))
    monkeypatch.chdir(tmp_path)
    assert load_clip("./delta").reference == "local-dir:./delta"
    assert json.loads((folder / DESCRIPTION).read_text())["base"]["reference"] == f"local-dir:{tiny_folder}"


def test_saving_leaves_the_tuned_network_as_it_was(base: Clip, tmp_path: Path) -> None:
    tuned = tuned_copy(base)
    tuned.requires_grad_(True).train()
    tuned.set_grad_checkpointing(True)  # type: ignore[operator]
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    save_delta(tmp_path / "delta", base, tuned, **HISTORY)
    assert all(module.training for module in tuned.modules())
    assert all(value.requires_grad for value in tuned.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tuned.state_dict().items())


def test_network_that_was_not_trained_is_the_base(base: Clip, tmp_path: Path) -> None:
    folder = save_delta(tmp_path / "delta", base, tuned_copy(base, scale=0.0), **HISTORY)
    assert load_clip(str(folder)).version == base.version


def test_all_parameters_may_be_trained_the_logit_scale_too(base: Clip, tmp_path: Path) -> None:
    tuned = tuned_copy(base, trained=lambda module: True)
    clip = load_clip(str(save_delta(tmp_path / "delta", base, tuned, **HISTORY)), precision="float32")
    assert clip.logit_scale == pytest.approx(float(tuned.logit_scale.exp()))  # type: ignore[operator, union-attr]
    assert len(load_file(tmp_path / "delta" / TENSORS)) == len(list(tuned.parameters()))


def test_batch_norms_are_kept_as_well(tmp_path: Path) -> None:
    base = load_clip(str(save_resnet(tmp_path / "resnet")), precision="float32")
    tuned = tuned_copy(base, trained=lambda module: isinstance(module, nn.BatchNorm2d))
    save_delta(tmp_path / "delta", base, tuned, **HISTORY)
    clip = load_clip(str(tmp_path / "delta"), precision="float32")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = tuned.encode_image(pixels)  # type: ignore[operator]
    torch.testing.assert_close(clip.encode_image(pixels, normalize=False), expected)
    assert not torch.allclose(base.encode_image(pixels, normalize=False), expected)


def test_existing_folder_is_never_overwritten(base: Clip, folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CheckpointError, match="exists"):
        save_tuned(folder, base, seed=1)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda tuned: tuned.ln_final.weight.data[0].fill_(float("nan")), "ln_final.weight"),
        (lambda tuned: tuned.transformer.half(), "torch.float16"),
        (lambda tuned: setattr(tuned, "ln_final", nn.LayerNorm(16)), "tensors"),
        (lambda tuned: setattr(tuned, "extra", nn.Linear(1, 1)), "tensors"),
    ],
    ids=["not finite", "rounded", "another shape", "another tensor"],
)
def test_network_that_makes_no_delta_leaves_nothing(
    spoil: Callable[[Any], Any], told: str, base: Clip, tmp_path: Path
) -> None:
    tuned = tuned_copy(base)
    spoil(tuned)
    with pytest.raises(DeltaError, match=told):
        save_delta(tmp_path / "delta", base, tuned, **HISTORY)
    assert list(tmp_path.iterdir()) == []


def test_base_that_was_trained_itself_or_rounded_is_refused(base: Clip, tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match="before training"):
        save_delta(tmp_path / "delta", base, base.network, **HISTORY)
    rounded = load_clip(base.reference, precision="bfloat16")
    with pytest.raises(DeltaError, match="float32"):
        save_delta(tmp_path / "delta", rounded, tuned_copy(base), **HISTORY)


@pytest.mark.parametrize("value", [float("nan"), Path("a")])
def test_history_that_is_not_json_is_refused(value: Any, base: Clip, tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match=DESCRIPTION):
        save_delta(
            tmp_path / "delta", base, tuned_copy(base), configuration={}, data={}, metrics={"group": value}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.slow
def test_the_layer_norms_of_vit_b_32_take_256_kib(vit_b_32_folder: Path, tmp_path: Path) -> None:
    base = load_clip(f"local-dir:{vit_b_32_folder}", precision="float32")
    folder = save_tuned(tmp_path / "delta", base)
    assert 65_536 * 4 <= (folder / TENSORS).stat().st_size <= 65_536 * 4 + 16_384
    assert sum(file.stat().st_size for file in folder.iterdir()) < 320 * 1024
    assert load_clip(str(folder), precision="float32").parameters == base.parameters


# Loading


def test_delta_encodes_as_the_tuned_network_in_open_clip(base: Clip, tiny_folder: Path, folder: Path) -> None:
    theirs = open_clip.create_model(f"local-dir:{tiny_folder}").eval()
    theirs.load_state_dict(tuned_copy(base).state_dict())
    clip = load_clip(str(folder), precision="float32")
    images, texts = embeddings(clip)
    with torch.no_grad():
        torch.testing.assert_close(images, theirs.encode_image(PIXELS, normalize=True), atol=1e-5, rtol=0)
        tokens = open_clip.get_tokenizer(f"local-dir:{tiny_folder}")(TEXTS)
        torch.testing.assert_close(texts, theirs.encode_text(tokens, normalize=True), atol=1e-5, rtol=0)
    assert (images - base.encode_image(PIXELS)).norm(dim=-1).min() > 0.01


def test_loaded_delta_says_what_it_is(base: Clip, folder: Path) -> None:
    clip = load_clip(f"local-dir:{folder}", precision="float32")
    assert clip.reference == f"local-dir:{folder}"
    assert clip.architecture == base.architecture
    assert clip.version != base.version
    assert (clip.precision, clip.parameters, clip.size_bytes) == ("float32", base.parameters, base.size_bytes)
    assert not any(value.requires_grad for value in clip.network.parameters())
    assert not clip.network.training


def test_reading_a_delta_again_and_again_takes_no_memory(folder: Path) -> None:
    tensors = len(read_delta(folder).tensors)
    before = sys.getallocatedblocks()
    for _ in range(100):
        read_delta(folder)
    # Other threads of the process may hold a few blocks more than before.
    assert sys.getallocatedblocks() - before < 100 * tensors


def test_laid_over_a_loaded_base_it_shares_what_did_not_change(base: Clip, folder: Path) -> None:
    before = {name: value.clone() for name, value in base.network.state_dict().items()}
    clip = apply_delta(base, folder)
    changed = load_file(folder / TENSORS)
    ours, theirs = clip.network.state_dict(), base.network.state_dict()
    for name, value in theirs.items():
        assert (ours[name].data_ptr() == value.data_ptr()) == (name not in changed)
        assert torch.equal(value, before[name])
    loaded = load_clip(str(folder), precision="float32")
    assert (clip.version, clip.reference) == (loaded.version, loaded.reference)
    assert_same_embeddings(clip, loaded)


def test_lower_precision_keeps_the_trained_layer_norms(base: Clip, folder: Path) -> None:
    exact = load_clip(str(folder), precision="float32")
    rounded = load_clip(base.reference, precision="bfloat16")
    for clip in (load_clip(str(folder), precision="bfloat16"), apply_delta(rounded, folder)):
        assert clip.version == exact.version
        assert clip.precision == "bfloat16"
        state = clip.network.state_dict()
        for name, value in load_file(folder / TENSORS).items():
            assert torch.equal(state[name], value)
        for ours, theirs in zip(embeddings(clip), embeddings(exact), strict=True):
            assert torch.cosine_similarity(ours, theirs).min() > 0.99


def test_delta_over_a_delta(base: Clip, folder: Path, tmp_path: Path) -> None:
    first = load_clip(str(folder), precision="float32")
    second = save_tuned(tmp_path / "second", first, seed=1)
    expected = tuned_copy(first, seed=1).state_dict()
    loaded = load_clip(str(second), precision="float32")
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, expected[name])


def test_delta_over_a_blend_keeps_its_alpha(folder: Path, tmp_path: Path) -> None:
    half = load_clip(f"{folder}#alpha=0.5", precision="float32")
    second = save_tuned(tmp_path / "second", half, seed=1)
    recorded = json.loads((second / DESCRIPTION).read_text())["base"]
    assert recorded["reference"] == f"local-dir:{folder}#alpha=0.5"
    assert load_clip(str(second)).version != half.version


# WiSE-FT


@pytest.mark.parametrize("alpha", [0.25, 0.7])
def test_blended_weights_lie_between_base_and_delta(alpha: float, base: Clip, folder: Path) -> None:
    clip = load_clip(f"local-dir:{folder}#alpha={alpha}", precision="float32")
    before, tuned = base.network.state_dict(), tuned_copy(base).state_dict()
    for name, value in clip.network.state_dict().items():
        expected = (1 - alpha) * before[name].numpy().astype(np.float64) + alpha * tuned[name].numpy()
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert clip.reference == f"local-dir:{folder}#alpha={alpha}"
    laid = apply_delta(base, folder, alpha)
    assert (laid.version, laid.reference) == (clip.version, clip.reference)
    assert_same_embeddings(laid, clip)


def test_alpha_goes_from_the_base_to_the_delta(base: Clip, folder: Path) -> None:
    versions = [load_clip(f"{folder}#alpha={alpha}").version for alpha in (0, 0.5, 1)]
    assert versions[0] == base.version
    assert versions[2] == load_clip(str(folder)).version
    assert len(set(versions)) == 3


def test_alpha_needs_a_delta_and_a_number_from_0_to_1(base: Clip, folder: Path, tiny_folder: Path) -> None:
    with pytest.raises(BadReferenceError, match="alpha"):
        load_clip(f"{tiny_folder}#alpha=0.5")
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(DeltaError, match="from 0"):
            apply_delta(base, folder, alpha)


def test_layer_norms_blend_over_a_rounded_base_and_other_weights_do_not(
    base: Clip, folder: Path, tmp_path: Path
) -> None:
    rounded = load_clip(base.reference, precision="bfloat16")
    assert apply_delta(rounded, folder, 0.5).version == apply_delta(base, folder, 0.5).version
    tuned = tuned_copy(base, trained=lambda module: isinstance(module, nn.Linear))
    everything = save_delta(tmp_path / "linear", base, tuned, **HISTORY)
    assert apply_delta(rounded, everything).version == load_clip(str(everything)).version
    with pytest.raises(DeltaError, match=r"rounded to bfloat16.*#alpha=0\.5"):
        apply_delta(rounded, everything, 0.5)


# What does not fit


def test_delta_over_the_wrong_base_is_refused_with_both_names(folder: Path, tmp_path: Path) -> None:
    other = load_clip(str(save_tiny_clip(tmp_path / "other", seed=3)), precision="float32")
    with pytest.raises(DeltaError) as refused:
        apply_delta(other, folder)
    recorded = json.loads((folder / DESCRIPTION).read_text())["base"]
    for part in (recorded["reference"], recorded["version"][:12], other.reference, other.version[:12]):
        assert part in str(refused.value)


def test_base_whose_activation_was_changed_is_another_base(base: Clip, tmp_path: Path) -> None:
    moved = save_tiny_clip(tmp_path / "base")
    folder = save_tuned(tmp_path / "delta", load_clip(str(moved), precision="float32"))
    config = json.loads((moved / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (moved / "open_clip_config.json").write_text(json.dumps(config))
    assert "another base" in refusal(folder)


def test_base_that_moved_is_named_with_the_remedy_which_works(tmp_path: Path) -> None:
    at_first = save_tiny_clip(tmp_path / "base")
    folder = save_tuned(tmp_path / "delta", load_clip(str(at_first), precision="float32"))
    shutil.move(at_first, tmp_path / "moved")
    told = refusal(folder)
    assert str(at_first) in told
    assert "base.reference" in told
    assert "sds-clip export" in told
    edit_description(folder, lambda content: content["base"].update(reference="local-dir:../moved"))
    assert load_clip(str(folder)).reference == f"local-dir:{folder}"


def test_delta_over_itself_is_refused(folder: Path) -> None:
    edit_description(folder, lambda content: content["base"].update(reference="local-dir:."))
    assert "over itself" in refusal(folder)


def test_pickle_named_as_the_base_is_refused(folder: Path) -> None:
    edit_description(folder, lambda content: content["base"].update(reference="/models/base.pt"))
    assert "pickle" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors["ln_final.bias"].add_(1e-3), "changed"),
        (lambda tensors: tensors["ln_final.bias"].fill_(float("inf")), "ln_final.bias"),
        (lambda tensors: tensors.pop("ln_final.bias"), "tensors"),
        (lambda tensors: tensors.update(more=torch.ones(1)), "tensors"),
        (lambda tensors: tensors.update({"ln_final.bias": torch.zeros(3)}), "shape [3]"),
        (lambda tensors: tensors.update({"ln_final.bias": torch.zeros(32).half()}), "float32"),
    ],
    ids=["value", "not finite", "missing", "surplus", "shape", "format"],
)
def test_changed_tensors_are_refused(
    change: Callable[[dict[str, Tensor]], Any], told: str, folder: Path
) -> None:
    edit_tensors(folder, change)
    assert told in refusal(folder)


def test_tensor_that_the_base_does_not_have_is_refused(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update(more=torch.ones(1)))
    edit_description(folder, lambda content: content["trained"].append("more"))
    assert " more " in refusal(folder)


@pytest.mark.parametrize("name", [TENSORS, "golden.safetensors"])
def test_file_that_is_cut_short_or_missing_is_refused(name: str, folder: Path) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:-10])
    assert name in refusal(folder)
    file.unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 1, "base": 3}']
)
def test_description_that_describes_no_delta_is_refused(content: str, folder: Path) -> None:
    (folder / DESCRIPTION).write_text(content)
    assert DESCRIPTION in refusal(folder)


def test_network_that_embeds_the_golden_inputs_otherwise_is_refused(base: Clip, folder: Path) -> None:
    golden = Golden.of(base)
    features = {"image_features": golden.image_features, "text_features": golden.text_features}
    save_file(features, folder / "golden.safetensors")
    assert "golden inputs" in refusal(folder)


def test_golden_inputs_tell_quick_gelu_from_gelu_by_far(tmp_path: Path) -> None:
    plain = load_clip(str(save_tiny_clip(tmp_path / "plain")), precision="float32")
    quick = load_clip(str(save_tiny_clip(tmp_path / "quick", quick_gelu=True)), precision="float32")
    golden = Golden.of(plain)
    assert golden.angle(plain) == 0
    assert golden.angle(quick) > 2e-3

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from sds_clip.models.checkpoints.delta import apply_delta, save_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import BadReferenceError
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.write import export_full
from tests.deltas import save_tuned, tuned_copy

WEIGHTS = "open_clip_model.safetensors"
TEXTS = ["a red cube left of a blue ball", "two dogs", "an image"]


def picture(seed: int) -> PIL.Image.Image:
    noise = torch.randint(0, 256, (7, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return PIL.Image.fromarray(noise.numpy()).resize((130, 90), PIL.Image.Resampling.BICUBIC)


def assert_plain_open_clip_agrees(reference: str, exported: Path) -> None:
    """Compare a reference in our hands with its export in open_clip's, pictures and texts to embeddings."""
    clip = load_clip(reference, precision="float32")
    network, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{exported}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{exported}")
    network.eval()
    pixels = torch.stack([preprocess(picture(seed)) for seed in range(3)])
    assert torch.equal(torch.stack([clip.preprocess(picture(seed)) for seed in range(3)]), pixels)
    with torch.no_grad():
        images = network.encode_image(pixels, normalize=True)
        texts = network.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(clip.encode_image(pixels), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.encode_text(clip.tokenizer(TEXTS)), texts, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["tiny", "siglip", "demo"])
@pytest.mark.parametrize("alpha", ["", "#alpha=0.7"])
def test_exported_delta_is_the_same_checkpoint_in_plain_open_clip(
    kind: str, alpha: str, tiny_folder: Path, siglip_folder: Path, tmp_path: Path
) -> None:
    named = {"tiny": str(tiny_folder), "siglip": str(siglip_folder), "demo": "demo"}[kind]
    delta = f"local-dir:{save_tuned(tmp_path / 'delta', load_clip(named, precision='float32'))}{alpha}"
    exported = export_full(delta, tmp_path / "whole")
    assert_plain_open_clip_agrees(delta, exported)
    assert load_clip(str(exported)).version == load_clip(delta).version
    assert not (exported / "sds_clip_delta.json").exists()


@pytest.mark.long
@pytest.mark.slow
def test_vit_b_32_exported_is_the_same_in_plain_open_clip(vit_b_32_folder: Path, tmp_path: Path) -> None:
    base = load_clip(f"local-dir:{vit_b_32_folder}", precision="float32")
    delta = str(save_tuned(tmp_path / "delta", base))
    assert_plain_open_clip_agrees(delta, export_full(delta, tmp_path / "whole"))


def test_alpha_at_export_is_alpha_at_load(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_clip(str(tiny_folder), precision="float32")
    delta = save_tuned(tmp_path / "delta", base)
    versions = {
        alpha: load_clip(str(export_full(str(delta), tmp_path / f"whole{alpha}", alpha))).version
        for alpha in (0.0, 0.4, 1.0)
    }
    assert versions == {
        0.0: base.version,
        0.4: load_clip(f"{delta}#alpha=0.4").version,
        1.0: load_clip(str(delta)).version,
    }


def test_loaded_delta_is_exported_as_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_clip(str(tiny_folder), precision="float32")
    clip = apply_delta(base, save_tuned(tmp_path / "delta", base), 0.3)
    assert load_clip(str(export_full(clip, tmp_path / "whole"))).version == clip.version


def test_every_tensor_keeps_the_format_it_was_stored_in(tmp_path: Path) -> None:
    base = load_clip("demo", precision="float32")
    formats = {name: stored.dtype for name, stored in base.identity.tensors.items()}
    assert torch.float16 in formats.values()
    delta = save_delta(
        tmp_path / "delta", base, tuned_copy(base, seed=2), configuration={}, data={}, metrics={}
    )
    trained = load_file(delta / "delta.safetensors")
    for name, value in load_file(export_full(str(delta), tmp_path / "whole") / WEIGHTS).items():
        assert value.dtype is (torch.float32 if name in trained else formats[name])


def test_configuration_is_written_out(tiny_folder: Path, tmp_path: Path) -> None:
    delta = save_tuned(tmp_path / "delta", load_clip(str(tiny_folder), precision="float32"))
    exported = export_full(str(delta), tmp_path / "whole")
    ours, theirs = (
        json.loads((folder / "open_clip_config.json").read_text()) for folder in (exported, tiny_folder)
    )
    assert ours["model_cfg"] == theirs["model_cfg"]
    assert ours["preprocess_cfg"] == {**theirs["preprocess_cfg"], "fill_color": 0}


def test_shorter_lengths_of_embeddings_are_written_too(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "matryoshka")
    config = json.loads((folder / "open_clip_config.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [16, 8]}))
    exported = export_full(f"local-dir:{folder}", tmp_path / "exported")
    assert load_clip(f"local-dir:{exported}", device="cpu", precision="float32").dimensions == (8, 16)


def test_whole_checkpoint_can_be_exported_and_not_blended(tiny_folder: Path, tmp_path: Path) -> None:
    version = load_clip(str(tiny_folder)).version
    assert load_clip(str(export_full(str(tiny_folder), tmp_path / "whole"))).version == version
    for reference in (str(tiny_folder), "demo"):
        with pytest.raises(BadReferenceError, match="alpha"):
            export_full(reference, tmp_path / "blended", 0.5)
    assert sorted(left.name for left in tmp_path.iterdir()) == ["whole"]


def test_existing_folder_and_impossible_alpha_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    delta = save_tuned(tmp_path / "delta", load_clip(str(tiny_folder), precision="float32"))
    with pytest.raises(CheckpointError, match="exists"):
        export_full(str(delta), delta)
    with pytest.raises(BadReferenceError, match="from 0"):
        export_full(str(delta), tmp_path / "whole", 1.5)


def test_configuration_beside_a_tokenizer_goes_with_it(siglip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(siglip_folder, folder)
    # A tokenizer may be told by it which class it is of.
    (folder / "config.json").write_text('{"vision_config": {"hidden_act": "gelu"}, "text_config": {}}')
    delta = save_tuned(tmp_path / "delta", load_clip(str(folder), precision="float32"))
    exported = export_full(str(delta), tmp_path / "whole")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (exported / name).read_bytes() == (folder / name).read_bytes()
    assert {file.stat().st_mode & 0o777 for file in exported.iterdir()} == {0o644}

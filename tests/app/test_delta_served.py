"""A fine-tuned delta served by `sds-clip serve`, against its export in plain open_clip."""

import io
from pathlib import Path

import httpx
import open_clip
import PIL.Image
import torch

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.export.write import export_full
from tests.app.conftest import base64_of, png
from tests.app.serverside import running_server
from tests.deltas import save_tuned

TEXTS = ["a large red circle is left of a blue square", "a green star"]
IMAGES = [png(200, 90, seed=1), png(64, 64, seed=2), png(31, 77, seed=3)]


def test_a_served_delta_embeds_as_its_export_in_plain_open_clip(tmp_path: Path) -> None:
    delta = save_tuned(tmp_path / "delta", load_clip("demo", precision="float32"))
    blended = f"local-dir:{delta}#alpha=0.5"
    exports = {
        f"local-dir:{delta}": export_full(str(delta), tmp_path / "whole"),
        blended: export_full(str(delta), tmp_path / "half", 0.5),
    }
    options = [option for reference in exports for option in ("--model", reference)]
    with running_server(tmp_path, *options, "--precision", "float32") as server:
        listed = httpx.get(f"{server.url}/models").json()["models"]
        versions = {model["reference"]: model["version"] for model in listed}
        for reference, exported in exports.items():
            assert versions[reference] == load_clip(str(exported)).version
            check(server.url, reference, exported)
    assert len(set(versions.values())) == 2


def check(url: str, model: str, exported: Path) -> None:
    network, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{exported}")
    network.eval()
    pictures = [PIL.Image.open(io.BytesIO(data)).convert("RGB") for data in IMAGES]
    with torch.no_grad():
        images = network.encode_image(
            torch.stack([preprocess(picture) for picture in pictures]), normalize=True
        )
        tokens = open_clip.get_tokenizer(f"local-dir:{exported}")(TEXTS)
        texts = network.encode_text(tokens, normalize=True)
    requests = [({"images": [base64_of(data) for data in IMAGES]}, images), ({"texts": TEXTS}, texts)]
    for body, expected in requests:
        answer = httpx.post(f"{url}/embed", json={**body, "model": model}, timeout=60).json()
        got = torch.tensor([result["embedding"] for result in answer["results"]])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)

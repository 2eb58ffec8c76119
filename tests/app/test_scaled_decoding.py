"""Large JPEGs that the service decodes at a smaller size, on each way into it."""

import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from starlette.testclient import TestClient

from sds_clip.app.decoder import Decoder
from sds_clip.app.errors import InvalidImage
from sds_clip.app.metrics import Metrics
from sds_clip.app.schemas.common import UrlImage
from sds_clip.app.serving.image_reader import ImageReader
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.clip.model import Clip
from sds_clip.models.images.decode import ImageLimits, decode_image
from tests.app.conftest import base64_of, embed, png, serving


@pytest.fixture(scope="module")
def scaling_clip(tiny_folder: Path) -> Clip:
    """It has inputs of 32 pixels, so a shorter side of 128 pixels is halved."""
    return load_served(f"local-dir:{tiny_folder}", device="cpu", precision="float32+scaled")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, scaling_clip: Clip) -> Iterator[TestClient]:
    with serving(Settings(data_dir=tmp_path_factory.mktemp("data"), threads=1), scaling_clip) as client:
        yield client


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG of grain that lies on its side."""
    pixels = np.random.default_rng(3).integers(0, 256, (400, 608, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def features(clip: Clip, photo: bytes, *, least_side: int) -> np.ndarray:
    pixels = clip.preprocess(decode_image(photo, least_side=least_side))
    return clip.encode_image(pixels[None]).numpy()[0]


def by_json(service: TestClient, photo: bytes) -> np.ndarray:
    return embed(service, images=[base64_of(photo)])[0]


def by_form(service: TestClient, photo: bytes) -> np.ndarray:
    answer = service.post("/embed", files=[("images", ("photo.jpg", photo, "image/jpeg"))])
    return np.array(answer.json()["results"][0]["embedding"], np.float32)


def by_openai(service: TestClient, photo: bytes) -> np.ndarray:
    uri = f"data:image/jpeg;base64,{base64_of(photo)}"
    body = {"model": "small", "input": [{"type": "image_url", "image_url": {"url": uri}}]}
    answer = service.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def by_cohere(service: TestClient, photo: bytes) -> np.ndarray:
    uri = f"data:image/jpeg;base64,{base64_of(photo)}"
    body = {"model": "small", "input_type": "image", "embedding_types": ["float"], "images": [uri]}
    answer = service.post("/v2/embed", json=body)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"]["float"][0], np.float32)


@pytest.mark.parametrize("send", [by_json, by_form, by_openai, by_cohere])
def test_each_way_to_send_a_photo_gives_the_embedding_of_the_scaled_one(
    send: Callable[[TestClient, bytes], np.ndarray], service: TestClient, photo: bytes, scaling_clip: Clip
) -> None:
    scaled, whole = (features(scaling_clip, photo, least_side=side) for side in (64, 0))
    assert np.abs(scaled - whole).max() > 1e-4
    np.testing.assert_allclose(send(service, photo), scaled, atol=1e-6)


class _Fetched:
    """Stands for what a URL leads to."""

    def __init__(self, photo: bytes) -> None:
        import asyncio

        self.photo, self.slots = photo, asyncio.Semaphore(1)

    async def fetch(self, url: str) -> bytes:
        return self.photo


@pytest.fixture
async def decoder() -> AsyncIterator[Decoder]:
    decoder = Decoder(ImageLimits(), threads=1, max_bytes=2**30, max_waiting=8)
    yield decoder
    decoder.close()


async def test_a_photo_from_a_url_is_scaled_too(decoder: Decoder, photo: bytes, scaling_clip: Clip) -> None:
    reader = ImageReader(decoder, _Fetched(photo), Metrics())  # type: ignore[arg-type]
    read = await reader.read([UrlImage(url="http://photo.test/"), photo], scaling_clip, "fail")
    expected = scaling_clip.preprocess(decode_image(photo, least_side=64))
    assert torch.equal(read.pixels[0], expected)
    assert torch.equal(read.pixels[1], expected)


async def test_a_photo_too_large_for_the_memory_is_taken_where_it_is_scaled(
    photo: bytes, scaling_clip: Clip
) -> None:
    decoder = Decoder(ImageLimits(), threads=1, max_bytes=1_000_000, max_waiting=8)
    try:
        with pytest.raises(InvalidImage) as refused:
            await decoder.pixels(photo, replace(scaling_clip, decoding="full"))
        assert refused.value.code == "image_over_memory_limit"
        assert (await decoder.pixels(photo, scaling_clip)).shape == (3, 32, 32)
        assert decoder.budget.used_bytes == 0
    finally:
        decoder.close()


def test_the_list_of_models_says_how_their_images_are_decoded(
    service: TestClient, client: TestClient
) -> None:
    for asked, decoding in ((service, "scaled"), (client, "full")):
        (model,) = asked.get("/models").json()["models"]
        assert (model["precision"], model["decoding"]) == ("float32", decoding)


def test_in_float32_a_photo_is_decoded_in_full(client: TestClient, small_clip: Clip, photo: bytes) -> None:
    np.testing.assert_allclose(by_json(client, photo), features(small_clip, photo, least_side=0), atol=1e-6)


def test_files_that_are_not_scaled_give_the_same_embedding(service: TestClient, client: TestClient) -> None:
    for image in (png(300, 300), png(126, 300, kind="JPEG"), png(301, 300, kind="JPEG")):
        np.testing.assert_allclose(by_json(service, image), by_json(client, image), atol=1e-6)


def test_a_file_can_be_made_so_that_the_two_ways_of_decoding_show_different_pictures() -> None:
    """Its levels go far beyond black and white. In full each pixel is clipped to them; a smaller one is their mean."""
    grid = np.full((256, 256), 60, np.uint8)
    grid[::4, ::4] = 140
    file = io.BytesIO()
    PIL.Image.fromarray(grid).save(file, "JPEG", quality=100)
    made = bytearray(file.getvalue())
    table = made.index(b"\xff\xdb") + 5  # one byte for each of 64 frequencies; the first is the mean's
    made[table + 1 : table + 64] = bytes([40]) * 63
    whole, scaled = (np.asarray(decode_image(bytes(made), least_side=side)).mean() for side in (0, 64))
    assert whole < 30
    assert scaled > 60

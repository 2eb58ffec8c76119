"""From base64 to pixels: the strict reading, and the threads that decode."""

import asyncio
import base64
import gc
import io
import threading
import weakref
from collections.abc import Callable

import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sds_clip.app.decode_budget import DecodeBudget
from sds_clip.app.decoder import Decoder, image_bytes
from sds_clip.app.errors import InvalidImage, OutOfMemory, Overloaded
from sds_clip.app.metrics import Metrics
from sds_clip.app.serving.image_reader import ImageReader
from sds_clip.models.clip.model import Clip
from sds_clip.models.images.decode import ImageLimits
from tests.app.conftest import base64_of, png

MAX_BYTES = 1000


@given(st.binary(max_size=MAX_BYTES))
def test_base64_gives_the_bytes_back(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()

    assert image_bytes(encoded, max_bytes=MAX_BYTES) == data
    assert image_bytes(f"data:image/png;base64,{encoded}", max_bytes=MAX_BYTES) == data
    assert image_bytes(base64.encodebytes(data).decode(), max_bytes=MAX_BYTES) == data


@given(st.text(max_size=100))
def test_any_text_gives_bytes_or_an_invalid_image(value: str) -> None:
    try:
        outcome = image_bytes(value, max_bytes=MAX_BYTES)
    except InvalidImage as error:
        outcome = error
    codes = ("invalid_base64", "invalid_data_uri", "image_is_path")
    assert isinstance(outcome, bytes) or outcome.code in codes


BASE64 = (
    "iVBORw0KGg=", "iVBORw0KGg", "iVBORw0KGg===", "iVBO=Rw0KGg=", "=", "a", "iV_ORw0K", "iV-ORw0K", "iVBO!w0K",
    "aGk=aGk=", "é===", "\0AAA", "\ud800AAA", "http://example.org/a.png", "HTTPS://example.org/a.png",
)  # fmt: skip
DATA_URI = ("data:", "data:image/png,abc", "data:image/png;base64", "data:;charset=utf-8,a", "DATA:x,aGk=")
WRONG = [
    *((value, "invalid_base64") for value in BASE64),
    *((value, "invalid_data_uri") for value in DATA_URI),
    *((base64_of(b"x" * size), "image_too_large") for size in (1001, 1002, 1003, 100_000)),
]


@pytest.mark.parametrize(("value", "code"), WRONG, ids=[f"{value[:20]!a} {code}" for value, code in WRONG])
def test_wrong_or_too_long_base64_is_refused(value: str, code: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        image_bytes(value, max_bytes=MAX_BYTES)
    assert caught.value.code == code


def test_wrong_base64_is_explained() -> None:
    for value, words in [
        ("iVBORw0KGg", "padding"),
        ("iV_ORw0K", "URL-safe"),
        ("iV!ORw0K", "characters"),
        ("https://example.org/", '{"url": "..."}'),
    ]:
        with pytest.raises(InvalidImage, match=words):
            image_bytes(value, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("head", ["data:;base64,", "DATA:IMAGE/PNG;BASE64,", "data:image/png;name=a;base64,"])
def test_unusual_data_uri_is_read(head: str) -> None:
    assert image_bytes(head + "aGk=", max_bytes=MAX_BYTES) == b"hi"


def decoder_of(
    limits: ImageLimits, *, threads: int, max_bytes: int = 2**30, max_waiting: int = 512
) -> Decoder:
    return Decoder(limits, threads=threads, max_bytes=max_bytes, max_waiting=max_waiting)


async def pixels_of(clip: Clip, images: list[bytes | str]) -> list[Tensor | BaseException]:
    decoder = decoder_of(ImageLimits(max_bytes=100_000), threads=2)
    try:
        return await asyncio.gather(
            *(decoder.pixels(image, clip) for image in images), return_exceptions=True
        )
    finally:
        decoder.close()


async def test_decoder_gives_the_models_own_pixels_for_bytes_and_base64(small_clip: Clip) -> None:
    data = png()
    expected = small_clip.preprocess(PIL.Image.open(io.BytesIO(data)).convert("RGB"))

    as_bytes, as_text = await pixels_of(small_clip, [data, base64.b64encode(data).decode()])

    assert torch.equal(as_bytes, expected)
    assert torch.equal(as_text, expected)


async def test_bad_image_is_its_own_error_only(small_clip: Clip) -> None:
    good = [png(seed=seed) for seed in range(6)]
    images: list[bytes | str] = [good[0], b"", good[1], good[2][:-20], good[3], "!", b"<svg>", good[5]]

    results = await pixels_of(small_clip, images)

    codes = [result.code if isinstance(result, InvalidImage) else "" for result in results]
    assert codes == ["", "image_empty", "", "image_truncated", "", "invalid_base64", "image_format", ""]
    assert all(isinstance(result, Tensor) for result, code in zip(results, codes, strict=True) if not code)


class _Gate:
    """Stands for a model whose preprocessing waits until it is let go."""

    image_size = (1, 1)
    least_side = 0

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def preprocess(self, image: PIL.Image.Image) -> Tensor:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.open.wait(10)
        with self._lock:
            self.running -= 1
        return torch.zeros(3, 1, 1)


async def test_decoding_is_bounded_and_an_abandoned_image_is_counted_until_it_is_done() -> None:
    gate = _Gate()

    decoder = decoder_of(ImageLimits(), threads=2, max_waiting=1)
    running = [asyncio.ensure_future(decoder.pixels(png(), gate)) for _ in range(3)]
    while gate.running < 2:
        await asyncio.sleep(0.001)
    with pytest.raises(Overloaded) as caught:
        await decoder.pixels(png(), gate)
    assert caught.value.retry_after_s is not None

    running[0].cancel()
    await asyncio.wait([running[0]])
    with pytest.raises(Overloaded):
        await decoder.pixels(png(), gate)

    gate.open.set()
    await asyncio.gather(*running, return_exceptions=True)
    while gate.running:
        await asyncio.sleep(0.001)
    assert isinstance(await decoder.pixels(png(), gate), Tensor)
    decoder.close()
    assert gate.most_running == 2


def test_large_image_waits_and_is_not_overtaken() -> None:
    budget = DecodeBudget(100)
    granted: list[int] = []
    taken = threading.Semaphore(0)

    def take(size_bytes: int) -> None:
        with budget.turn():
            assert budget.take(size_bytes, lambda: False)
            granted.append(size_bytes)
        taken.release()

    take(60)
    assert taken.acquire(timeout=60)
    threads = []
    for waiting, size_bytes in enumerate((90, 5, 20), 1):
        threads.append(threading.Thread(target=take, args=(size_bytes,)))
        threads[-1].start()
        while len(budget._line) < waiting:
            threading.Event().wait(0.001)
    assert granted == [60]  # the small ones would fit
    budget.give_back(60)
    assert taken.acquire(timeout=60)
    assert taken.acquire(timeout=60)
    assert granted == [60, 90, 5]
    budget.give_back(90)
    for thread in threads:
        thread.join(60)
    assert granted == [60, 90, 5, 20]
    assert budget.used_bytes == 25


async def test_image_over_the_whole_budget_is_refused_and_smaller_ones_are_not(small_clip: Clip) -> None:
    decoder = decoder_of(ImageLimits(), threads=1, max_bytes=2**20)
    with pytest.raises(InvalidImage) as refused:
        await decoder.pixels(png(400, 400), small_clip)
    assert refused.value.code == "image_over_memory_limit"
    assert str(2**20) in refused.value.message
    assert isinstance(await decoder.pixels(png(), small_clip), Tensor)
    assert decoder.budget.used_bytes == 0
    decoder.close()


async def test_cancelled_images_give_their_share_and_their_place_back() -> None:
    gate = _Gate()
    async with asyncio.timeout(60):
        data = png(100, 100)
        decoder = decoder_of(ImageLimits(), threads=3, max_bytes=200_000)  # room for one
        running = asyncio.ensure_future(decoder.pixels(data, gate))
        while gate.running < 1:
            await asyncio.sleep(0.001)
        waiting = [asyncio.ensure_future(decoder.pixels(data, gate)) for _ in range(2)]
        while len(decoder.budget._line) < 2:
            await asyncio.sleep(0.001)
        for task in waiting:
            task.cancel()
        while decoder.unfinished > 1:  # though the first still holds the budget
            await asyncio.sleep(0.001)
        running.cancel()
        assert decoder.budget.used_bytes > 0  # a thread cannot be stopped
        gate.open.set()
        while decoder.budget.used_bytes:
            await asyncio.sleep(0.001)
        assert isinstance(await decoder.pixels(data, gate), Tensor)
        decoder.close()
    assert gate.most_running == 1


class _Short:
    """Stands for a model for whose pixels there is no memory."""

    image_size = (1, 1)
    least_side = 0
    picture: "weakref.ref[PIL.Image.Image] | None" = None

    def preprocess(self, image: PIL.Image.Image) -> Tensor:
        self.picture = weakref.ref(image)
        raise MemoryError


async def test_lack_of_memory_is_an_error_that_keeps_nothing() -> None:
    short = _Short()

    decoder = decoder_of(ImageLimits(), threads=1)
    with pytest.raises(OutOfMemory) as caught:
        await decoder.pixels(png(), short)
    assert short.picture is not None
    assert short.picture() is None
    assert caught.value.retry_after_s
    assert decoder.budget.used_bytes == 0
    decoder.close()


async def test_refused_image_is_let_go_without_the_garbage_collector(small_clip: Clip) -> None:
    async def refused(reader: ImageReader) -> "weakref.ref[InvalidImage]":
        try:
            await reader.read([base64.b64encode(png()[:-20]).decode()], small_clip, "fail")
        except InvalidImage as error:
            return weakref.ref(error)
        raise AssertionError("the image was taken")

    decoder = decoder_of(ImageLimits(), threads=1)
    gc.disable()
    try:
        error = await refused(ImageReader(decoder, None, Metrics()))
        await decoder.pixels(png(), small_clip)  # the thread lets go of its last work
        assert error() is None
    finally:
        gc.enable()
        decoder.close()


async def test_while_keys_share_the_threads_images_of_a_request_are_decoded_one_by_one_and_a_busy_key_waits(
    small_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(ImageLimits(), threads=4)
    shared, running, most = True, 0, 0
    pixels = Decoder.pixels

    async def counting(self: Decoder, image: bytes, clip: Clip, took: Callable[[float], object]) -> Tensor:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            found = await pixels(self, image, clip)
            took(3600.0)
            return found
        finally:
            running -= 1

    monkeypatch.setattr(Decoder, "pixels", counting)
    reader = ImageReader(decoder, None, Metrics(), lambda: shared)
    files = [base64.b64encode(png()).decode()] * 3
    waiting = asyncio.create_task(reader.read(files, small_clip, "fail", caller="alice"))
    assert len((await reader.read(files[:1], small_clip, "fail", caller="bob")).pixels) == 1
    assert not waiting.done()  # for its second image
    waiting.cancel()
    shared = False
    most = 0
    assert len((await reader.read(files, small_clip, "fail", caller="alice")).pixels) == 3
    assert most == 3
    decoder.close()


async def test_memory_is_released_once_more_after_the_last_image_s_period(
    small_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body of an image that ends just before a release is freed after it."""
    monkeypatch.setattr("sds_clip.app.decoder._RELEASE_EVERY_S", 0.01)
    released = threading.Semaphore(0)
    monkeypatch.setattr("sds_clip.app.decoder.release_free_memory", released.release)

    decoder = decoder_of(ImageLimits(), threads=2)
    await decoder.pixels(png(), small_clip)
    for _ in range(2):
        assert await asyncio.to_thread(released.acquire, timeout=30)
    decoder.close()

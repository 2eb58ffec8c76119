"""What the client takes for images and texts, and lists that are longer than one request."""

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sds_clip import AsyncClient, Client, UnreadableFile
from sds_clip.client import ClientError, errors
from sds_clip.client.images import encoded
from tests.app.serverside import RunningServer, running_server
from tests.sds_clip.scripted import Answer, Scripted, scripted

TEXTS = ["a red circle", "a blue square", "a green star", "a red star", "a blue circle"]
Use = Callable[[Client], Any]


@pytest.fixture
def silent() -> Iterator[Scripted]:
    """A server that answers nothing of use, and remembers what it was asked."""
    with scripted(Answer()) as server:
        yield server


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A service that takes few images and texts in a request, which a client cannot know."""
    folder = tmp_path_factory.mktemp("narrow")
    options = ("--model", "demo", "--device", "cpu", "--precision", "float32")
    constants = {"sds_clip.app.settings.MAX_TEXTS": 2}
    with running_server(folder, *options, constants=constants, SDS_CLIP_MAX_IMAGES="3") as server:
        yield server


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The same, with the limits that it has by default."""
    folder = tmp_path_factory.mktemp("wide")
    with running_server(folder, "--model", "demo", "--device", "cpu", "--precision", "float32") as server:
        yield server


def noise(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(count)]


PICTURE = noise(1)[0]
WRONG: dict[str, tuple[str, Use]] = {
    "a string for texts": ("texts", lambda client: client.match([PICTURE], "a cat")),
    "a number among texts": ("texts", lambda client: client.match([PICTURE], ["a cat", 3])),  # type: ignore[list-item]
    "a string for labels": ("labels", lambda client: client.classify([PICTURE], "cat")),
    "a string for templates": (
        "templates",
        lambda client: client.classify([PICTURE], ["cat"], templates="a {}"),
    ),
    "a string to embed": ("texts", lambda client: client.embed(texts="a cat")),
    "a path for images": ("images", lambda client: client.match("cat.jpg", TEXTS)),  # type: ignore[arg-type]
    "bytes for images": ("images", lambda client: client.embed(b"cat")),  # type: ignore[arg-type]
    "a picture for images": ("images", lambda client: client.embed(PICTURE)),  # type: ignore[arg-type]
    "an array for images": ("images", lambda client: client.embed(np.asarray(PICTURE))),
    "a file for images": ("images", lambda client: client.embed(io.BytesIO(b"cat"))),  # type: ignore[arg-type]
    "a file of text": ("images", lambda client: client.embed([io.StringIO("cat")])),  # type: ignore[list-item]
    "a picture's file opened as text": (
        "images",
        lambda client: client.embed([io.TextIOWrapper(io.BytesIO(b"\x89PNG"), encoding="utf-8")]),  # type: ignore[list-item]
    ),
    "an empty array": ("images", lambda client: client.embed([np.zeros((0, 0, 3), np.uint8)])),
    "an array of numbers": ("images", lambda client: client.embed([np.zeros((4, 4, 3))])),
    "channels first": ("images", lambda client: client.embed([np.zeros((3, 8, 8), np.uint8)])),
    "no image at all": ("images", lambda client: client.embed([3])),  # type: ignore[list-item]
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_is_a_type_error_that_names_the_field_and_nothing_is_sent(
    case: str, silent: Scripted
) -> None:
    param, use = WRONG[case]
    with Client(silent.url) as client, pytest.raises(TypeError, match=rf"^{param}\b"):
        use(client)
    assert silent.asked == []


async def test_the_awaited_client_refuses_the_same(silent: Scripted) -> None:
    async with AsyncClient(silent.url) as client:
        with pytest.raises(TypeError, match=r"^texts"):
            await client.match([PICTURE], "a cat")
        with pytest.raises(UnreadableFile):
            await client.embed(["nowhere.png"])
    assert silent.asked == []


def test_named_labels_and_templates_are_no_lists(silent: Scripted) -> None:
    with scripted(Answer(body=b'{"results": [], "model": {}}')) as server, Client(server.url) as client:
        client.classify([PICTURE], "imagenet", templates="openai")
        body = json.loads(server.asked[0].body)
    assert (body["labels"], body["templates"]) == ("imagenet", "openai")


def test_what_is_none_is_not_sent_and_a_name_that_only_the_service_can_know_is() -> None:
    with scripted(Answer(body=b'{"results": [], "model": {}}')) as server, Client(server.url) as client:
        client.embed(texts=["a"], model=None, normalize=False, newer=True)  # type: ignore[call-arg]
        assert json.loads(server.asked[0].body) == {"texts": ["a"], "normalize": False, "newer": True}


def test_a_misspelt_name_is_refused_by_the_service(wide: RunningServer) -> None:
    with Client(wide.url) as client, pytest.raises(errors.InvalidRequest) as raised:
        client.embed(texts=["a"], normalise=True)  # type: ignore[call-arg]
    assert (raised.value.status, raised.value.param) == (422, "normalise")


def test_a_pil_image_is_sent_as_its_pixels_without_its_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    PICTURE.save(tmp_path / "a.png", exif=exif)
    content = base64.b64decode(str(encoded(Image.open(tmp_path / "a.png"), 0)))
    sent = Image.open(io.BytesIO(content))
    assert not sent.getexif()
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(PICTURE))


def test_arrays_files_buffers_and_data_uris_have_the_scores_of_the_picture(
    wide: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path)
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")  # and stands at its end
    alpha = np.dstack([np.asarray(PICTURE), np.full((16, 16), 255, np.uint8)])
    uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    with Client(wide.url) as client, path.open("rb") as file:
        same = [path, np.asarray(PICTURE), alpha, file, buffer, bytearray(path.read_bytes()), uri]
        scores = [result["scores"] for result in client.match(same, TEXTS)["results"]]
        assert scores == [scores[0]] * len(same)
        grey = np.asarray(PICTURE.convert("L"))
        several = client.match([grey, grey[:, :, None], PICTURE.convert("L")], TEXTS)["results"]
        assert several[0]["scores"] == several[1]["scores"] == several[2]["scores"] != scores[0]
        stacked = np.stack([np.asarray(PICTURE)] * 2)
        for result in client.match(stacked, TEXTS)["results"]:
            assert result["scores"] == pytest.approx(scores[0], abs=1e-5)


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_sent(silent: Scripted, tmp_path: Path) -> None:
    good = tmp_path / "a.png"
    PICTURE.save(good)
    torn = tmp_path / "torn.png"
    torn.write_bytes(good.read_bytes()[:-100])
    with Client(silent.url) as client, Image.open(torn) as opened:
        for index, image, bad in (
            (99, tmp_path / "none.png", tmp_path / "none.png"),
            (99, tmp_path, tmp_path),
            (9, opened, torn),
        ):
            with pytest.raises(UnreadableFile) as raised:
                client.match([good] * index + [image], TEXTS)
            error = raised.value
            assert isinstance(error, ClientError)
            assert (error.code, error.param, error.index) == ("file_unreadable", "images", index)
            assert str(bad) in error.message
    with Client(silent.url) as client, pytest.raises(UnreadableFile) as raised:
        client.upload_dataset(tmp_path / "none.tar", format="pairs")
    assert str(tmp_path / "none.tar") in raised.value.message
    assert silent.asked == []


def test_a_damaged_data_uri_is_refused_by_the_service_at_its_place(wide: RunningServer) -> None:
    with Client(wide.url) as client, pytest.raises(errors.InvalidRequest) as raised:
        client.embed([PICTURE, "Data:image/png,no base64"])
    assert (raised.value.code, raised.value.index) == ("invalid_data_uri", 1)


def test_an_error_says_its_field_and_place(wide: RunningServer) -> None:
    with Client(wide.url) as client, pytest.raises(errors.InvalidRequest) as raised:
        client.match([PICTURE, b"no image"], TEXTS)
    assert str(raised.value) == f"images[1]: {raised.value.message}"


def close(one: Any, other: Any) -> bool:
    """Whether two answers say the same, in float32's exactness; batches of other sizes round otherwise."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == pytest.approx(other, rel=1e-3, abs=1e-5) if isinstance(one, float) else one == other)


VERBS: dict[str, Use] = {
    "match": lambda client: client.match(noise(8), TEXTS),
    "one text": lambda client: client.match(noise(8), TEXTS[:1]),
    "one image": lambda client: client.match(noise(1), TEXTS),
    "none readable": lambda client: client.match([b"none"] * 4, TEXTS, on_error="skip"),
    "skipped": lambda client: client.match([*noise(4), b"none", *noise(4)], TEXTS, on_error="skip"),
    "classify": lambda client: client.classify(noise(8), ["circle", "square"]),
    "images": lambda client: client.embed(noise(8)),
    "texts": lambda client: client.embed(texts=TEXTS),
}


@pytest.mark.parametrize("verb", VERBS)
def test_lists_longer_than_a_request_are_answered_as_one(
    verb: str, narrow: RunningServer, wide: RunningServer
) -> None:
    with Client(narrow.url) as few, Client(wide.url) as many:
        joined, whole = VERBS[verb](few), VERBS[verb](many)
    assert close(joined, whole), (joined, whole)
    assert [result["index"] for result in joined["results"]] == list(range(len(whole["results"])))


def test_more_images_than_the_default_limit_are_sent_in_parts(wide: RunningServer) -> None:
    images = noise(70)
    with Client(wide.url) as client:
        joined = client.match(images, TEXTS)
        last = client.match(images[-2:], TEXTS)["results"]
        assert len(joined["results"]) == 70
        assert [result["probabilities"] for result in joined["results"][-2:]] == [
            pytest.approx(result["probabilities"], rel=1e-3) for result in last
        ]
        for of_images in joined["text_probabilities"]:
            assert sum(of_images) == pytest.approx(1)
        with pytest.raises(errors.InvalidRequest) as raised:
            client.embed([*images, b"no image"])
        assert (raised.value.param, raised.value.index) == ("images", 70)


def test_the_awaited_client_joins_too(narrow: RunningServer) -> None:
    async def use() -> dict[str, Any]:
        async with AsyncClient(narrow.url) as client:
            return await client.match(noise(8), TEXTS)

    with Client(narrow.url) as client:
        assert asyncio.run(use()) == client.match(noise(8), TEXTS)


def matched(version: str, count: int, logit: float, probability: float) -> Answer:
    """An answer to as many images and one text, with the same numbers for each."""
    numbers = {"scores": [logit], "logits": [logit], "probabilities": [probability]}
    results = [{"index": index, **numbers, "best": 0, "best_text": "a cat"} for index in range(count)]
    answer = {"model": {"version": version}, "results": results}
    if count > 1:
        answer["text_probabilities"] = [[probability] * count]
    return Answer(body=json.dumps(answer).encode())


def test_sigmoids_stay_as_they_are() -> None:
    # A SigLIP's: sigmoid(-10) = 4.5e-5, whichever other texts and images there are.
    answers = [matched("1", 64, -10.0, 4.5397868e-5), matched("1", 6, -10.0, 4.5397868e-5)]
    with scripted(*answers) as server, Client(server.url) as client:
        joined = client.match([PICTURE] * 70, ["a cat"])
    assert joined["text_probabilities"] == [[pytest.approx(4.5397868e-5)] * 70]


def test_what_cannot_be_told_is_not_joined() -> None:
    # softmax((40)) = 1 = sigmoid(40), for each image alone: the rows over the images would tell.
    limit = Answer(422, b'{"error": {"code": "too_many_images", "message": "One.", "param": "images"}}')
    with (
        scripted(limit, matched("1", 1, 40.0, 1.0)) as server,
        Client(server.url) as client,
        pytest.raises(ClientError) as raised,
    ):
        client.match([PICTURE] * 2, ["a cat"])
    assert raised.value.code == "cannot_join"


def test_answers_of_two_versions_are_never_joined() -> None:
    sigmoid = 4.5397868e-5
    old, new = matched("old", 64, -10.0, sigmoid), matched("new", 6, -10.0, sigmoid)
    again = [matched("new", 64, -10.0, sigmoid), matched("new", 6, -10.0, sigmoid)]
    with scripted(old, new, *again) as server, Client(server.url) as client:
        assert client.match([PICTURE] * 70, ["a cat"])["model"] == {"version": "new"}
        assert len(server.asked) == 4
    with (
        scripted(old, new, old, new, old, new) as server,
        Client(server.url) as client,
        pytest.raises(ClientError) as raised,
    ):
        client.match([PICTURE] * 70, ["a cat"])
    assert raised.value.code == "model_swapped"


def test_model_that_could_not_answer_once_was_not_swapped() -> None:
    def compared(count: int, *, fails: bool) -> Answer:
        good, other = (matched(version, count, -10.0, 4.5397868e-5) for version in "12")
        error = b'{"name": "2", "error": {"code": "key_limit", "message": "Later."}}'
        return Answer(body=b'{"answers": [%s, %s]}' % (good.body, error if fails else other.body))

    with (
        scripted(compared(64, fails=True), compared(6, fails=False)) as server,
        Client(server.url) as client,
    ):
        good, failed = client.match([PICTURE] * 70, ["a cat"], models=["1", "2"])["answers"]
    assert len(good["results"]) == 70
    assert failed["error"]["code"] == "key_limit"

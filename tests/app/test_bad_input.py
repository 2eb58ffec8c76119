"""What strangers send: each a documented status with the one error body, and nobody else harmed."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from sds_clip.app.settings import Settings
from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png, serving

GOOD = {"images": [base64_of(png(seed=1))], "texts": ["a red circle"]}
URI = f"data:image/png;base64,{GOOD['images'][0]}"
TEXT_PART = {"type": "text", "text": "a red circle"}
IMAGE_PART: dict[str, Any] = {"type": "image_url", "image_url": {"url": URI}}
USUAL: dict[str, dict[str, Any]] = {
    "/match": GOOD,
    "/classify": {"images": GOOD["images"], "labels": ["a"]},
    "/embed": {},
    "/v1/embeddings": {"model": "small"},
    "/v2/embed": {"model": "small", "input_type": "clustering"},
}
COHERE = b'{"model":"small","input_type":"clustering",'


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


def animated(kind: str) -> bytes:
    frames = [PIL.Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels and whose data is a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def sixteen_bit() -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)).save(file, "PNG")
    return file.getvalue()


def rotated() -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif.tobytes())


ACCEPTED = {
    "one pixel": png(1, 1),
    "animated GIF": animated("GIF"),
    "animated WebP": animated("WEBP"),
    "MPO": animated("MPO"),
    "CMYK": encoded("JPEG", "CMYK"),
    "16 bit": sixteen_bit(),
    "alpha": encoded("PNG", "RGBA"),
    "palette": encoded("PNG", "P"),
    "rotated by EXIF": rotated(),
}
REFUSED = {
    "no bytes": (b"", "image_empty"),
    "truncated JPEG": (encoded("JPEG")[:-300], "image_truncated"),
    "decompression bomb": (png_of_size(60_000, 60_000), "image_too_large"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image_format"),
    "HTML": (b"<!DOCTYPE html><html></html>", "image_format"),
    "TIFF": (encoded("TIFF"), "image_format"),
    "thin": (png(1, 2000), "image_too_narrow"),
    "base64, which only a JSON body has": (base64_of(png()).encode(), "image_format"),
}


def sent(client: TestClient, path: str, body: Any) -> Any:
    """The answer to a body, or to one that differs from a good one in these fields."""
    content = body if isinstance(body, bytes) else json.dumps({**USUAL[path], **body}).encode()
    return client.post(path, content=content, headers={"Content-Type": "application/json"})


def error_of(answer: Any) -> dict[str, Any]:
    """In Cohere's protocol, the whole body is the error."""
    body: dict[str, Any] = answer.json()
    error: dict[str, Any] = body.get("error", body)
    own = {"id"} if error is body else {"type"}
    assert {"type", "code", "message", "param"} | own <= error.keys()
    assert error.get("id", answer.headers["X-Request-Id"]) == answer.headers["X-Request-Id"]
    return error


def with_image(client: TestClient, way: str, data: bytes) -> Any:
    """The answer to an image beside two others, in one of the ways in which images are sent."""
    good, image = GOOD["images"][0], base64_of(data)
    url = {"type": "image_url", "image_url": {"url": image}}
    if way == "a form":
        files = [("images", ("x.jpg", each)) for each in (png(), png(), data)]
        return client.post("/match", files=files, data={"texts": ["a"]})
    path, body = {
        "input": ("/v1/embeddings", {"input": ["a", {"image": good}, {"image": image}]}),
        "images": ("/v2/embed", {"images": [good, good, image]}),
        "inputs": ("/v2/embed", {"inputs": [{"content": [part]} for part in (TEXT_PART, TEXT_PART, url)]}),
    }[way]
    return sent(client, path, body)


WAYS = ["a form", "input", "images", "inputs"]


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("way", WAYS)
def test_unusual_images_are_answered(client: TestClient, way: str, name: str) -> None:
    answer = with_image(client, way, ACCEPTED[name])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("way", WAYS)
def test_bad_images_are_refused_at_their_place(client: TestClient, way: str, name: str) -> None:
    data, code = REFUSED[name]
    answer = with_image(client, way, data)
    assert answer.status_code == 422
    error = error_of(answer)
    param = "images" if way == "a form" else way
    assert (error["code"], error["param"], error["index"]) == (code, param, 2)


INVALID = (422, "invalid_request")
LONG = (422, "text_too_long")
COMPLEX = (413, "body_too_complex")
MALFORMED = (400, "malformed_body")
MILLION = b"0," * 2**20 + b"0]"
BODIES: dict[str, dict[str, tuple[Any, tuple[int, str]]]] = {
    "/match": {
        "not JSON": (b"{", MALFORMED),
        "lone surrogate": (b'{"images": ["eA=="], "texts": ["\\ud800"]}', MALFORMED),
        "not UTF-8": (b'{"images": ["eA=="], "texts": ["\xff"]}', MALFORMED),
        "no images": ({"images": []}, INVALID),
        "no texts": ({"texts": []}, INVALID),
        "3,000 texts": ({"texts": ["a"] * 3000}, (422, "too_many_texts")),
        "100 images": ({"images": GOOD["images"] * 100}, (422, "too_many_images")),
        "a text of 1 MB": ({"texts": ["x" * 2**20]}, LONG),
        "an unknown model": ({"model": "../../etc/passwd"}, (404, "unknown_model")),
        "an unknown field": ({"modle": "small"}, INVALID),
        "texts of a wrong type": ({"texts": "a"}, INVALID),
        "an image of a wrong type": ({"images": [3]}, INVALID),
        "a wrong pad": ({"images": [GOOD["images"][0].rstrip("=")[:-1]]}, (422, "invalid_base64")),
        "a path": ({"images": ["photos/my-cat.jpg"]}, (422, "image_is_path")),
        "a path of here": ({"images": ["./cat"]}, (422, "image_is_path")),
        "an absolute path": ({"images": ["/data/photos/my_cat"]}, (422, "image_is_path")),
        "a file URL": ({"images": ["file:///data/photos/cat"]}, (422, "image_is_path")),
        "the start of a JPEG": ({"images": ["/9j/4AAQSkZJRg"]}, (422, "invalid_base64")),
        "a million wrong images": (b'{"images":[' + MILLION + b',"texts":["a"]}', COMPLEX),
        "300,000 unknown fields": (b"{" + b",".join(b'"k%d":1' % n for n in range(300_000)) + b"}", COMPLEX),
        "a million lists in each other": (b"[" * 2**20, COMPLEX),
        "a thousand lists in each other": (b"[" * 1000, MALFORMED),
        "a URL, switched off": ({"images": [{"url": "http://x.org/"}]}, (422, "image_url_disabled")),
        "a wrong choice": ({"on_error": "ignore"}, INVALID),
    },
    "/embed": {"a million wrong texts": (b'{"texts":[' + MILLION + b"}", COMPLEX)},
    "/classify": {
        "a template bomb": ({"labels": ["x" * 500], "templates": ["{}" * 10**6]}, COMPLEX),
        "top_k of 0": ({"top_k": 0}, INVALID),
        "top_k as text": ({"top_k": "1"}, INVALID),
        "an unknown set": ({"labels": "coco"}, INVALID),
        "top_k of 2,000": ({"top_k": 2000}, INVALID),
        "a long label": ({"labels": ["x" * 600]}, LONG),
        "a template that multiplies its label": ({"labels": ["x" * 500], "templates": ["{}" * 500]}, LONG),
        "too many prompts": ({"labels": ["a"] * 4000, "templates": ["{}"] * 100}, (422, "too_many_prompts")),
    },
    "/v1/embeddings": {
        "not JSON": (b"{", MALFORMED),
        "lone surrogate": (b'{"model": "small", "input": "\\ud800"}', MALFORMED),
        "no input": ({}, INVALID),
        "an empty list": ({"input": []}, INVALID),
        "no model": (b'{"input": "a"}', INVALID),
        "an unknown model": ({"input": "a", "model": "gpt-4"}, (404, "unknown_model")),
        "an unknown field": ({"input": "a", "truncate": True}, INVALID),
        "an unknown part": ({"input": [{"type": "audio", "audio": "x"}]}, INVALID),
        "null": ({"input": None}, INVALID),
        "a list of null": ({"input": [None]}, INVALID),
        "10,000 texts": ({"input": ["a"] * 10_000}, (422, "too_many_texts")),
        "100 images": ({"input": [URI] * 100}, (422, "too_many_images")),
        "a text of 1 MB": ({"input": ["a", "x" * 2**20]}, LONG),
        "a URL, switched off": ({"input": [{"image": "http://x.org/cat.png"}]}, (422, "image_url_disabled")),
        "a long URL": ({"input": [{"image": "http://x.org/" + "x" * 4096}]}, INVALID),
        "a path": ({"input": [{"image": "photos/my-cat.jpg"}]}, (422, "image_is_path")),
        "a wrong format": ({"input": "a", "encoding_format": "int8"}, INVALID),
        "a million wrong items": (b'{"model":"small","input":[' + b"null," * 2**19 + b"null]}", COMPLEX),
        "dimensions of 0": ({"input": "a", "dimensions": 0}, INVALID),
    },
    "/v2/embed": {
        "not JSON": (b"{", MALFORMED),
        "lone surrogate": (
            b'{"model": "small", "input_type": "clustering", "texts": ["\\ud800"]}',
            MALFORMED,
        ),
        "nothing": ({}, INVALID),
        "an empty list": ({"texts": []}, INVALID),
        "texts and images": ({"texts": ["a"], "images": [URI]}, INVALID),
        "no model": (b'{"texts": ["a"], "input_type": "clustering"}', INVALID),
        "no input type": (b'{"texts": ["a"], "model": "small"}', INVALID),
        "an unknown input type": ({"texts": ["a"], "input_type": "query"}, INVALID),
        "a text as an image": ({"texts": ["a"], "input_type": "image"}, INVALID),
        "an input of text as an image": (
            {"inputs": [{"content": [TEXT_PART]}], "input_type": "image"},
            INVALID,
        ),
        "a text and an image in one input": ({"inputs": [{"content": [TEXT_PART, IMAGE_PART]}]}, INVALID),
        "two texts in one input": ({"inputs": [{"content": [TEXT_PART, TEXT_PART]}]}, INVALID),
        "an input of nothing": ({"inputs": [{"content": []}]}, INVALID),
        "an unknown part": ({"inputs": [{"content": [{"type": "audio", "audio": "x"}]}]}, INVALID),
        "an unknown model": ({"texts": ["a"], "model": "embed-v4.0"}, (404, "unknown_model")),
        "an unknown field": ({"texts": ["a"], "max_tokens": 8}, INVALID),
        "an unknown type": ({"texts": ["a"], "embedding_types": ["int4"]}, INVALID),
        "no types": ({"texts": ["a"], "embedding_types": []}, INVALID),
        "an unknown cut": ({"texts": ["a"], "truncate": "MIDDLE"}, INVALID),
        "null": ({"texts": None}, INVALID),
        "texts of a wrong type": ({"texts": "a"}, INVALID),
        "10,000 texts": ({"texts": ["a"] * 10_000}, (422, "too_many_texts")),
        "100 images": ({"images": [URI] * 100}, (422, "too_many_images")),
        "a text of 1 MB": ({"texts": ["a", "x" * 2**20]}, LONG),
        "a URL, switched off": ({"images": ["http://x.org/cat.png"]}, (422, "image_url_disabled")),
        "a long URL": ({"images": ["http://x.org/" + "x" * 4096]}, INVALID),
        "a path": ({"images": ["photos/my-cat.jpg"]}, (422, "image_is_path")),
        "a million wrong texts": (COHERE + b'"texts":[' + MILLION + b"}", COMPLEX),
        "a million wrong parts": (COHERE + b'"inputs":[{"content":[' + MILLION + b"}]}", COMPLEX),
        "output_dimension of 0": ({"texts": ["a"], "output_dimension": 0}, INVALID),
    },
}


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, bodies in BODIES.items() for name in bodies]
)
def test_bad_bodies_get_the_one_error_body(client: TestClient, path: str, name: str) -> None:
    body, expected = BODIES[path][name]
    answer = sent(client, path, body)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == expected, answer.text
    assert error.keys() - {"index", "id"} == {"type", "code", "message", "param"}
    assert sent(client, "/match", {}).status_code == 200


AN_OBJECT = "an object with url, detail"
STRING = "must be a string"
A_PART = '{"type": "text", "text": ...}'
PLACES: dict[str, dict[str, tuple[Any, str, int | None, str]]] = {
    "/match": {
        "a number": (5, "images", 1, STRING),
        "a number as a URL": ({"url": 5}, "images[1].url", None, STRING),
        "no URL": ({}, "images[1].url", None, "is required"),
        "a misspelt field": ({"uri": "http://x.org/"}, "images[1].uri", None, "did you mean url?"),
        "a long URL": ({"url": "http://x.org/" + "x" * 4096}, "images[1].url", None, "maximum length is 2048"),
    },
    "/v1/embeddings": {
        "a number as a URL": ({**IMAGE_PART, "image_url": {"url": 5}}, "input[1].image_url.url", None, STRING),
        "no URL": ({**IMAGE_PART, "image_url": {}}, "input[1].image_url.url", None, "is required"),
        "a URL in place of its object": ({**IMAGE_PART, "image_url": URI}, "input[1].image_url", None, AN_OBJECT),
        "another type": ({**IMAGE_PART, "type": "video"}, "input[1].type", None, "'image_url'"),
        "a misspelt field of a text": ({"text": "a", "tpye": "text"}, "input[1].tpye", None, "did you mean type?"),
        "an unknown field of a text": ({"text": "a", "x": 1}, "input[1].x", None, "the fields here are type, text."),
        "an unknown field of a URL": (
            {"image_url": {"url": URI, "x": 1}, "type": "image_url"}, "input[1].image_url.x", None, "url, detail",
        ),
        "a number as Jina's image": ({"image": 5}, "input[1].image", None, STRING),
        "a number as a text": ({"text": 5}, "input[1].text", None, STRING),
        "an unknown kind": ({"type": "audio", "audio": "x"}, "input", 1, '"image_url": {"url": ...}}'),
        "a number with a fraction": (1.5, "input", 1, "An item must be a string"),
        "a list of texts": (["a", "b"], "input", 1, "An item must be a string"),
        "a list of numbers and texts": ([1, "b"], "input[1]", 1, "a whole number"),
    },
    "/v2/embed": {
        "a number as a URL": (
            [{**IMAGE_PART, "image_url": {"url": 5}}], "inputs[1].content[0].image_url.url", None, "must be a string",
        ),
        "a URL in place of its object": (
            [{**IMAGE_PART, "image_url": URI}], "inputs[1].content[0].image_url", None, AN_OBJECT,
        ),
        "a number as a text": ([{**TEXT_PART, "text": 5}], "inputs[1].content[0].text", None, STRING),
        "an unknown field": ([{**TEXT_PART, "x": 1}], "inputs[1].content[0].x", None, "fields here are type, text."),
        "an unknown part": ([{"type": "audio", "audio": "x"}], "inputs[1].content", 0, A_PART),
        "a part of an unhashable type": ([{"type": []}], "inputs[1].content", 0, A_PART),
        "a text in place of a part": (["a"], "inputs[1].content", 0, A_PART),
        "a text in place of the list": ("a", "inputs[1].content", None, "must be a list"),
        "two parts": ([TEXT_PART, TEXT_PART], "inputs", 1, "send each as an input"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, items in PLACES.items() for name in items])
def test_a_wrong_item_is_told_its_place(client: TestClient, path: str, name: str) -> None:
    item, param, index, said = PLACES[path][name]
    body = {
        "/match": {"images": [GOOD["images"][0], item]},
        "/v1/embeddings": {"input": ["a", item]},
        "/v2/embed": {"inputs": [{"content": [TEXT_PART]}, {"content": item}]},
    }[path]
    answer = sent(client, path, body)
    error = error_of(answer)
    assert answer.status_code == 422
    assert (error["param"], error.get("index")) == (param, index)
    assert said in error["message"]


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory, small_member: Clip) -> Iterator[TestClient]:
    """A service that fetches images and takes large bodies."""
    data_dir = tmp_path_factory.mktemp("lenient")
    settings = Settings(data_dir=data_dir, threads=1, allow_url_images=True, max_body_bytes=2**25)
    with serving(settings, small_member) as client:
        yield client


@pytest.mark.parametrize("host", ["xn--", "xn--.org", "a.xn--a", "a..org", ".org", "%00", "\u200d"])
def test_url_with_a_malformed_host_is_that_images_error(lenient: TestClient, host: str) -> None:
    body = {**GOOD, "images": [GOOD["images"][0], {"url": f"http://{host}/"}]}

    refused = lenient.post("/match", json=body)
    skipped = lenient.post("/match", json={**body, "on_error": "skip"})

    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"], error["index"]) == (
        422, "image_url_forbidden", "images", 1,
    )  # fmt: skip
    assert skipped.status_code == 200
    assert [result.get("error", {}).get("code") for result in skipped.json()["results"]] == [
        None,
        "image_url_forbidden",
    ]


def test_nul_bytes_and_odd_texts_are_only_texts(client: TestClient) -> None:
    texts = ["a\x00b", "\u202e", "🟥" * 500, "x" * 4096, "<|endoftext|>"]
    answer = client.post("/match", json={**GOOD, "texts": texts})
    assert answer.status_code == 200
    assert len(answer.json()["results"][0]["scores"]) == len(texts)


def test_a_foreign_media_type_is_refused(client: TestClient) -> None:
    answer = client.post("/match", content=b"a=b", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_a_broken_form_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (
        b"",
        b"--x\r\n",
        b"--y\r\nabc",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--",
    ):
        assert client.post("/match", content=content, headers=headers).status_code in (400, 422)


@pytest.mark.parametrize("charset", ["unicode_escape", "undefined", "no-such"])
def test_a_forms_odd_charset_is_no_way_around_the_checks(client: TestClient, charset: str) -> None:
    form = (
        '--x\r\nContent-Disposition: form-data; name="texts"\r\n\r\n\\ud800\r\n'
        '--x\r\nContent-Disposition: form-data; name="images"\r\n\r\neA==\r\n--x--\r\n'
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    assert client.post("/match", content=form.encode(), headers=headers).status_code in (400, 422)


def test_a_form_cut_short_is_refused(client: TestClient) -> None:
    request = client.build_request(
        "POST", "/match", files=[("images", ("x", png()))], data={"texts": ["one", "two"]}
    )
    whole = request.read()
    headers = {"Content-Type": request.headers["Content-Type"]}
    assert client.post("/match", content=whole, headers=headers).status_code == 200
    for cut in (3, 5, 14, 20, 60):
        answer = client.post("/match", content=whole[:-cut], headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")


def test_a_forms_text_is_utf_8(client: TestClient) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="texts"\r\n\r\n%b\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    plain = client.post("/embed", json={"texts": ["café"]}).json()
    assert client.post("/embed", content=form % "café".encode(), headers=headers).json() == plain
    refused = client.post("/embed", content=form % "café".encode("latin-1"), headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "texts")


def test_a_field_twice_is_refused_where_one_is_meant(client: TestClient) -> None:
    files = [("images", ("x", png()))]
    answer = client.post("/match", files=files, data={"texts": ["a"], "model": ["small", "small"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("path", "field", "values"),
    [
        ("/classify", "labels", ['["cat", "dog"]']),
        ("/classify", "labels", ["cat,dog"]),
        ("/classify", "labels", ["cat", " ['dog', 'cow'] "]),
        ("/classify", "templates", ['["a {}", "the {}"]']),
        ("/match", "texts", ['["a cat","a dog"]']),
        ("/match", "texts", ["[]"]),
        ("/match/compare", "models", ['["small"]']),
    ],
)
def test_a_list_in_one_field_of_a_form_is_refused_with_what_to_write(
    client: TestClient, path: str, field: str, values: list[str]
) -> None:
    needed = {"labels": ["cat", "dog"]} if path == "/classify" else {"texts": ["a cat"]}
    needed |= {"models": ["small"]} if path == "/match/compare" else {}
    answer = client.post(path, files=[("images", ("x", png()))], data={**needed, field: values})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["index"]) == (422, field, len(values) - 1)
    assert f"-F {field}=FIRST -F {field}=SECOND" in error["message"]
    assert ("Send JSON if a label itself has a comma." in error["message"]) == (values == ["cat,dog"])


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/match", {"texts": ["a red circle, left of a square"]}),
        ("/match", {"texts": ["[sic] a cat", "[a cat]"]}),
        ("/classify", {"labels": ["crane, the bird", "cat"], "templates": ["a {}, an animal"]}),
        ("/classify", {"labels": ["cat", "dog"], "templates": ["{}"]}),
    ],
)
def test_commas_and_brackets_in_texts_of_a_form_are_texts(
    client: TestClient, path: str, fields: dict[str, list[str]]
) -> None:
    answer = client.post(path, files=[("images", ("x", png()))], data=fields)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("empty", ["", " ", "\t\n", "\u3000"])
@pytest.mark.parametrize("path", USUAL)
def test_an_empty_text_is_refused_with_its_place(client: TestClient, path: str, empty: str) -> None:
    param = {"/classify": "labels", "/v1/embeddings": "input"}.get(path, "texts")
    answer = sent(client, path, {param: ["a cat", empty]})
    assert answer.status_code == 422, answer.text
    error = error_of(answer)
    assert (error["code"], error["param"], error["index"]) == ("invalid_text", param, 1)
    assert "is empty" in error["message"]


def test_a_misspelt_field_is_reported_before_the_one_that_it_leaves_missing(client: TestClient) -> None:
    misspelt = {"image" if name == "images" else name: value for name, value in GOOD.items()}

    assert client.post("/match", json=misspelt).json()["error"]["param"] == "image"


def test_every_wrong_field_is_told_and_at_most_twenty(client: TestClient) -> None:
    wrong = client.post("/match", json={"images": [3], "texts": "a", "on_error": "ignore", "modle": "x"})
    told = wrong.json()["error"]
    assert [(each["param"], each.get("index")) for each in told["errors"]] == [
        ("modle", None), ("images", 0), ("texts", None), ("on_error", None),
    ]  # fmt: skip
    assert (told["param"], told["message"]) == ("modle", told["errors"][0]["message"])
    assert "did you mean model?" in told["message"]

    unknown = client.post("/match", json={**GOOD, **{f"x{number}": 1 for number in range(2000)}})
    assert unknown.status_code == 422
    assert [each["param"] for each in unknown.json()["error"]["errors"]] == [f"x{n}" for n in range(20)]
    assert "errors" not in client.post("/match", json={**GOOD, "x": 1}).json()["error"]


LARGE: dict[str, tuple[bytes, str]] = {
    "a million unknown fields": (
        b"{" + b",".join(b'"k%d":1' % number for number in range(10**6)) + b"}",
        "body_too_complex",
    ),
    "32 MiB of escapes": (b'{"texts":["' + b"\\n" * (2**24 - 20) + b'"]}', "body_too_complex"),
    "a number of 32 MiB": (b'{"texts":[' + b"1" * (2**25 - 20) + b"]}", "body_too_complex"),
    "a name of 31 MiB": (b'{"' + b"A" * (31 * 2**20) + b'":1}', "body_too_complex"),
    "a name of 3 MiB": (b'{"' + b"A" * (3 * 2**20) + b'":1}', "invalid_request"),
    "a string of 31 MiB in an unknown field": (b'{"k":"' + b"A" * (31 * 2**20) + b'"}', "body_too_complex"),
    "a model of 31 MiB": (b'{"model":"' + b"A" * (31 * 2**20) + b'"}', "body_too_complex"),
    "32 MiB of quotation marks": (b'"' * 2**25, "body_too_complex"),
    "32 MiB of backslashes": (b'{"texts":["' + b"\\" * (2**25 - 20) + b'"]}', "body_too_complex"),
    "texts of 24 MiB": (json.dumps({**GOOD, "texts": ["\u00e9" * 4096] * 1024}).encode(), "body_too_complex"),
    "an image of 20 MiB": (json.dumps({**GOOD, "images": ["A" * (28 * 2**20)]}).encode(), "image_too_large"),
    "escaped slashes": (
        json.dumps({**GOOD, "images": ["A/" * 2**16 + "A" * 2**23]}).replace("/", "\\/").encode(),
        "image_format",
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_bodies_are_bounded_before_they_are_parsed(lenient: TestClient, name: str) -> None:
    body, code = LARGE[name]
    answer = lenient.post("/match", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["error"]["code"] == code


def test_texts_full_of_signs_are_within_the_bounds(client: TestClient) -> None:
    texts = [f'a "cat", [number: {number}] {{and}} a \\ dog, or a "mouse"' for number in range(1024)]
    assert client.post("/match", json={**GOOD, "texts": texts}).status_code == 200


def test_bad_images_beside_good_requests_harm_nobody(client: TestClient) -> None:
    expected = client.post("/match", json=GOOD).json()
    for data, _ in REFUSED.values():
        client.post("/match", json={**GOOD, "images": [base64_of(data)]})
        assert client.post("/match", json=GOOD).json() == expected


def test_routes_and_methods_that_are_not_there_get_the_error_body(client: TestClient) -> None:
    assert client.get("/nothing").json()["error"]["code"] == "not_found"
    refused = client.get("/match")
    assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_allowed")
    assert refused.headers["Allow"] == "POST"
    assert client.put("/datasets/x").headers["Allow"] == "GET, DELETE"

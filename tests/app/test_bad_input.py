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

from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png

GOOD = {"images": [base64_of(png(seed=1))], "texts": ["a red circle"]}


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


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_images_are_answered(client: TestClient, name: str) -> None:
    answer = client.post("/match", files=[("images", ("x.jpg", ACCEPTED[name]))], data={"texts": ["a"]})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", REFUSED)
def test_bad_images_are_refused_by_what_they_are(client: TestClient, name: str) -> None:
    data, code = REFUSED[name]
    answer = client.post("/match", files=[("images", ("x.jpg", data))], data={"texts": ["a"]})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["index"]) == (code, "images", 0)


BODIES: dict[str, tuple[str, Any, int, str]] = {
    "not JSON": ("/match", b"{", 400, "malformed_body"),
    "lone surrogate": ("/match", b'{"images": ["eA=="], "texts": ["\\ud800"]}', 400, "malformed_body"),
    "not UTF-8": ("/match", b'{"images": ["eA=="], "texts": ["\xff"]}', 400, "malformed_body"),
    "no images": ("/match", {**GOOD, "images": []}, 422, "invalid_request"),
    "no texts": ("/match", {**GOOD, "texts": []}, 422, "invalid_request"),
    "3,000 texts": ("/match", {**GOOD, "texts": ["a"] * 3000}, 422, "too_many_texts"),
    "100 images": ("/match", {**GOOD, "images": GOOD["images"] * 100}, 422, "too_many_images"),
    "a text of 1 MB": ("/match", {**GOOD, "texts": ["x" * 2**20]}, 422, "text_too_long"),
    "an unknown model": ("/match", {**GOOD, "model": "../../etc/passwd"}, 404, "unknown_model"),
    "an unknown field": ("/match", {**GOOD, "modle": "small"}, 422, "invalid_request"),
    "texts of a wrong type": ("/match", {**GOOD, "texts": "a"}, 422, "invalid_request"),
    "an image of a wrong type": ("/match", {**GOOD, "images": [3]}, 422, "invalid_request"),
    "a wrong pad": (
        "/match",
        {**GOOD, "images": [GOOD["images"][0].rstrip("=")[:-1]]},
        422,
        "invalid_base64",
    ),
    "a path": ("/match", {**GOOD, "images": ["photos/my-cat.jpg"]}, 422, "image_is_path"),
    "a path of here": ("/match", {**GOOD, "images": ["./cat"]}, 422, "image_is_path"),
    "an absolute path": ("/match", {**GOOD, "images": ["/data/photos/my_cat"]}, 422, "image_is_path"),
    "a file URL": ("/match", {**GOOD, "images": ["file:///data/photos/cat"]}, 422, "image_is_path"),
    "the start of a JPEG": ("/match", {**GOOD, "images": ["/9j/4AAQSkZJRg"]}, 422, "invalid_base64"),
    "a million wrong images": (
        "/match",
        b'{"images":[' + b"0," * 2**20 + b'0],"texts":["a"]}',
        413,
        "body_too_complex",
    ),
    "a million wrong texts": ("/embed", b'{"texts":[' + b"0," * 2**20 + b"0]}", 413, "body_too_complex"),
    "300,000 unknown fields": (
        "/match",
        b"{" + b",".join(b'"k%d":1' % number for number in range(300_000)) + b"}",
        413,
        "body_too_complex",
    ),
    "a million lists in each other": ("/match", b"[" * 2**20, 413, "body_too_complex"),
    "a thousand lists in each other": ("/match", b"[" * 1000, 400, "malformed_body"),
    "a template bomb": (
        "/classify",
        {"images": GOOD["images"], "labels": ["x" * 500], "templates": ["{}" * 10**6]},
        413,
        "body_too_complex",
    ),
    "a URL, switched off": (
        "/match",
        {**GOOD, "images": [{"url": "http://x.org/"}]},
        422,
        "image_url_disabled",
    ),
    "a wrong choice": ("/match", {**GOOD, "on_error": "ignore"}, 422, "invalid_request"),
    "top_k of 0": (
        "/classify",
        {"images": GOOD["images"], "labels": ["a"], "top_k": 0},
        422,
        "invalid_request",
    ),
    "top_k as text": (
        "/classify",
        {"images": GOOD["images"], "labels": ["a"], "top_k": "1"},
        422,
        "invalid_request",
    ),
    "an unknown set": ("/classify", {"images": GOOD["images"], "labels": "coco"}, 422, "invalid_request"),
    "top_k of 2,000": (
        "/classify",
        {"images": GOOD["images"], "labels": ["a"], "top_k": 2000},
        422,
        "invalid_request",
    ),
    "a long label": ("/classify", {"images": GOOD["images"], "labels": ["x" * 600]}, 422, "text_too_long"),
    "a template that multiplies its label": (
        "/classify",
        {"images": GOOD["images"], "labels": ["x" * 500], "templates": ["{}" * 500]},
        422,
        "text_too_long",
    ),
    "too many prompts": (
        "/classify",
        {"images": GOOD["images"], "labels": ["a"] * 4000, "templates": ["{}"] * 100},
        422,
        "too_many_prompts",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_get_the_one_error_body(client: TestClient, name: str) -> None:
    path, body, status, code = BODIES[name]
    if isinstance(body, bytes):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    else:
        answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert set(error) - {"index"} == {"type", "code", "message", "param"}
    assert answer.headers["X-Request-Id"]
    assert client.post("/match", json=GOOD).status_code == 200


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory, small_member: Clip) -> Iterator[TestClient]:
    """A service that fetches images and takes large bodies."""
    data_dir = tmp_path_factory.mktemp("lenient")
    settings = Settings(data_dir=data_dir, threads=1, allow_url_images=True, max_body_bytes=2**25)
    with TestClient(create_app(settings, {"small": small_member}), base_url="http://localhost") as client:
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


def test_a_body_of_50_mb_is_refused_unread(client: TestClient) -> None:
    answer = client.post("/match", content=bytes(50 * 2**20), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_chunked_body_without_a_length_is_counted(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield bytes(2**20)

    answer = client.post("/match", content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert client.app.state.body_budget.used == 0  # type: ignore[attr-defined]


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
@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/match", {"images": GOOD["images"]}, "texts"),
        ("/embed", {}, "texts"),
        ("/classify", {"images": GOOD["images"]}, "labels"),
        ("/v1/embeddings", {"model": "small"}, "input"),
        ("/v2/embed", {"model": "small", "input_type": "search_query"}, "texts"),
    ],
)
def test_an_empty_text_is_refused_with_its_place(
    client: TestClient, path: str, fields: dict[str, Any], param: str, empty: str
) -> None:
    answer = client.post(path, json={**fields, param: ["a cat", empty]})
    assert answer.status_code == 422, answer.text
    error = answer.json() if path == "/v2/embed" else answer.json()["error"]
    assert (error["code"], error["param"], error["index"]) == ("invalid_text", param, 1)
    assert "is empty" in error["message"]


def test_a_misspelt_field_is_reported_before_the_one_that_it_leaves_missing(client: TestClient) -> None:
    misspelt = {"image" if name == "images" else name: value for name, value in GOOD.items()}

    assert client.post("/match", json=misspelt).json()["error"]["param"] == "image"


@pytest.mark.parametrize(
    ("item", "param", "index", "said"),
    [
        (5, "images", 1, "must be a string"),
        ({"url": 5}, "images[1].url", None, "must be a string"),
        ({}, "images[1].url", None, "is required"),
        ({"uri": "http://x.org/"}, "images[1].uri", None, "did you mean url?"),
        ({"url": "http://x.org/" + "x" * 4096}, "images[1].url", None, "maximum length is 2048"),
    ],
)
def test_a_wrong_image_is_told_its_place(
    client: TestClient, item: object, param: str, index: int | None, said: str
) -> None:
    answer = client.post("/match", json={**GOOD, "images": [GOOD["images"][0], item]})
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert (error["param"], error.get("index")) == (param, index)
    assert said in error["message"]


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

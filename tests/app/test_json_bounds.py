"""The bounds of a JSON body, against what json itself counts."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds_clip.app import json_bounds
from sds_clip.app.errors import BodyTooComplex
from sds_clip.app.json_bounds import JsonBounds, _end_of_string

FEW = JsonBounds(values=100, string_bytes=64)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def _every_body_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bounds, "SMALL_BYTES", 0)


def signs_of(value: object) -> int:
    """The signs that stand before values and names outside of strings."""
    match value:
        case list():
            return 1 + max(0, len(value) - 1) + sum(map(signs_of, value))
        case dict():
            return 1 + max(0, len(value) - 1) + sum(1 + signs_of(each) for each in value.values())
    return 0


def is_refused(body: bytes, bounds: JsonBounds) -> bool:
    try:
        bounds.check(body)
    except BodyTooComplex:
        return True
    return False


@settings(max_examples=300)
@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_signs_in_strings_do_not_count(value: object, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(["", value], ensure_ascii=ascii_only, indent=indent).encode()
    quotes = body.count(b'\\"')
    signs = signs_of(["", value])
    assert not is_refused(body, JsonBounds(values=signs + quotes, string_bytes=10**6))
    assert is_refused(body, JsonBounds(values=signs - 1, string_bytes=10**6))


@pytest.mark.parametrize(
    ("name", "body", "refused"),
    [
        ("no strings", b"[" + b"1," * 200 + b"1]", True),
        ("strings without signs between them", b'""' * 200, True),
        ("fields", b"{" + b",".join(b'"k%d":1' % n for n in range(60)) + b"}", True),
        ("few fields", b"{" + b",".join(b'"k%d":1' % n for n in range(49)) + b"}", False),
        ("lists in each other", b"[" * 200, True),
        ("a long image", b'{"images":["' + b"A" * 1000 + b'"]', False),
        ("a long image with escaped slashes", b'{"images":["' + b"A/A\\/" * 200 + b'"]', False),
        ("a long string with a wide character", b'{"images":["' + b"A" * 1000 + "é".encode() + b'"]', True),
        ("a long string with a wide escape", b'{"images":["' + b"A" * 1000 + b'\\u00e9"]', True),
        ("a short string with wide characters", '["éé"]'.encode(), False),
        ("a short one beside a long image", '{"images":["éé", "'.encode() + b"A" * 1000 + b'"]', False),
        ("a long name", b'{"' + b"A" * 1000 + b'" :1}', True),
        ("a long string of an unknown field", b'{"images":["a"],"k":"' + b"A" * 1000 + b'"}', True),
        ("a long string without a field", b'["' + b"A" * 1000 + b'"]', True),
        ("an image in an object", b'{"input":[{"text":"a"},{"image" :"' + b"A" * 1000 + b'"}]}', False),
        ("an image after an object", b'{"input":[{"text":"a"},"' + b"A" * 1000 + b'"]}', False),
        ("a string without an end", b'{"images":["' + b"A" * 1000, False),
        ("one that ends in an escaped backslash", b'["\\\\", 1' + b",1" * 200, True),
        ("one that ends in an escaped quote", b'["\\\\\\"' + b",1" * 20, False),
    ],
)
def test_what_is_refused(name: str, body: bytes, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bounds, "MAX_ESCAPES_IN_PART", 200)
    assert is_refused(body, FEW) is refused, name


@settings(max_examples=500)
@given(st.lists(st.sampled_from(["\\", '"', "a", "\\" * 63, "\\" * 64, "\\" * 65]), max_size=12))
def test_strings_end_where_the_parser_ends_them(parts: list[str]) -> None:
    body = '"' + "".join(parts)
    try:
        _, end = json.decoder.scanstring(body, 1)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Unterminated"):
            return  # no string: a backslash before an a
        end = len(body)
    assert _end_of_string(body.encode(), 0, most=64)[0] == end


@pytest.mark.parametrize("backslashes", [63, 64, 65])
def test_values_behind_a_run_of_backslashes_are_counted(backslashes: int) -> None:
    quotes = b'"' if backslashes % 2 == 0 else b'""'
    body = b'{"images":["' + b"\\" * backslashes + quotes + b",1" * 200 + b"]"
    assert is_refused(body, JsonBounds(values=100, string_bytes=64))


@pytest.mark.parametrize("backslashes", [2**18, 2**18 + 1])
def test_a_long_run_of_backslashes_is_refused_wherever_its_string_ends(
    backslashes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_bounds, "SMALL_BYTES", 0)
    body = b'{"images":["' + b"\\" * backslashes + b'"]'
    with pytest.raises(BodyTooComplex, match="is not base64"):
        JsonBounds(100, 64).check(body)


def test_signs_in_a_string_are_only_text_up_to_its_last_quote() -> None:
    assert not is_refused(b'{"images":["' + b",:[{" * 15 + b'"]', FEW)
    assert not is_refused(b'["\\\\\\"' + b"," * 50 + b'"]', FEW)
    assert is_refused(b'{"images":["' + b'\\"' * 101 + b'"]', JsonBounds(values=100, string_bytes=10**6))


def test_a_schema_without_images_has_no_long_strings() -> None:
    body = b'{"images":["' + b"A" * 1000 + b'"]}'
    assert not is_refused(body, FEW)
    assert is_refused(body, replace(FEW, images=False))


def test_numbers_and_spaces_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bounds, "MAX_OTHER_BYTES", 1000)
    with pytest.raises(BodyTooComplex, match="outside of strings"):
        FEW.check(b"[" + b"1" * 1000 + b"]")
    FEW.check(b'{"images":["' + b"1" * 1000 + b'"]')


def test_texts_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bounds, "MAX_TEXT_BYTES", 500)
    with pytest.raises(BodyTooComplex, match="texts of the body"):
        FEW.check(json.dumps(["x" * 50] * 20).encode())
    FEW.check(json.dumps({"images": ["x" * 500] * 20}).encode())


def test_a_string_of_escapes_is_refused_at_its_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bounds, "PART_BYTES", 128)
    monkeypatch.setattr(json_bounds, "MAX_ESCAPES_IN_PART", 8)
    assert is_refused(b'{"images":["' + b"A" * 200 + b"\\/" * 20 + b'"]', FEW)
    assert not is_refused(b'{"images":["' + (b"A" * 62 + b"\\/") * 20 + b'"]', FEW)

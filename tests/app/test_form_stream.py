"""The form parser, fed in pieces of every size."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sds_clip.app.errors import MalformedBody
from sds_clip.app.form_stream import MAX_EPILOGUE_BYTES, MAX_FIELD_BYTES, FormStream

TYPE = "multipart/form-data; boundary=b-b"


def form_of(parts: Sequence[tuple[str, bytes]]) -> bytes:
    body = b""
    for name, content in parts:
        body += f'--b-b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--b-b--\r\n"


async def pieces(content: bytes, sizes: Sequence[int]) -> AsyncIterator[bytes]:
    """The content cut after so many bytes, again and again."""
    start = turn = 0
    while start < len(content):
        size = sizes[turn % len(sizes)]
        yield content[start : start + size]
        start, turn = start + size, turn + 1


def read(content: bytes, sizes: Sequence[int] = (10**6,)) -> list[tuple[str, bytes]]:
    async def read_all() -> list[tuple[str, bytes]]:
        found = []
        async for part in FormStream(TYPE, pieces(content, sizes)):
            found.append((part.name, b"".join([chunk async for chunk in part.chunks()])))
        return found

    return asyncio.run(read_all())


# Contents that look like the form's own framing.
PIECES = st.sampled_from([b"\r\n", b"--", b"b-b", b"--b-", b"\r\n--b", b"-", b"\0"])
CONTENT = st.one_of(st.binary(max_size=50), st.lists(PIECES).map(b"".join))
PARTS = st.lists(st.tuples(st.sampled_from(["name", "file", "\u00fc"]), CONTENT), max_size=5).filter(
    lambda parts: all(b"\r\n--b-b" not in b"\r\n" + content for _, content in parts)
)


@given(parts=PARTS, sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_parts_come_out_as_they_went_in_however_they_are_cut(
    parts: list[tuple[str, bytes]], sizes: list[int]
) -> None:
    if parts:
        assert read(form_of(parts), sizes) == parts


@given(cut=st.integers(1, 70), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_form_that_was_cut_short_is_no_smaller_form(cut: int, sizes: list[int]) -> None:
    content = form_of([("name", b"mine"), ("file", b"0123456789")])

    with pytest.raises(MalformedBody):
        read(content.removesuffix(b"--\r\n")[:-cut], sizes)


def test_what_follows_the_form_is_bounded() -> None:
    form = form_of([("name", b"mine")])

    assert read(form + bytes(1000), (100,)) == [("name", b"mine")]
    with pytest.raises(MalformedBody):
        read(form + bytes(MAX_EPILOGUE_BYTES + 1000), (100,))


def test_field_has_a_bounded_length() -> None:
    async def text(size: int) -> str:
        form = FormStream(TYPE, pieces(form_of([("name", b"x" * size)]), (1000,)))
        async for part in form:
            return await part.text()
        raise AssertionError

    assert len(asyncio.run(text(MAX_FIELD_BYTES))) == MAX_FIELD_BYTES
    with pytest.raises(MalformedBody, match="too long"):
        asyncio.run(text(MAX_FIELD_BYTES + 1))


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", 'x; boundary=""']
)
def test_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedBody, match="boundary"):
        FormStream(content_type, pieces(b"", (1,)))

"""Reads a multipart form part by part as it arrives, and stores no file, in memory or on disk."""

import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sds_clip.app.content_type import boundary
from sds_clip.app.errors import MalformedBody

MAX_HEADER_BYTES = 16 * 2**10
MAX_FIELD_BYTES = 64 * 2**10
MAX_EPILOGUE_BYTES = 2**20


class FormStream:
    """The parts of a form, in order. Each part must be read to its end before the next one is requested.

    Any method that reads on raises MalformedBody if the form is damaged or truncated.
    """

    def __init__(self, content_type: str, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks.__aiter__()
        self._found: deque[Part | bytes | None] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._header_bytes = self._epilogue_bytes = 0
        self._ended = False
        self._parser = MultipartParser(
            boundary(content_type),
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": lambda: self._found.append(None),
                "on_end": self._form_ends,
            },
        )

    async def __aiter__(self) -> AsyncIterator["Part"]:
        while (found := await self._next()) is not None:
            if not isinstance(found, Part):
                raise RuntimeError("a part was left before its end")
            yield found

    async def content(self) -> AsyncIterator[bytes]:
        """The bytes of the part that was returned last."""
        while (found := await self._next()) is not None:
            assert isinstance(found, bytes)
            yield found

    async def _next(self) -> "Part | bytes | None":
        """A part, some of a part's bytes, or None at the end of a part or of the form."""
        while not self._found:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if not self._ended:
                    raise MalformedBody(
                        "The form has no closing boundary at its end; send the whole form."
                    ) from None
                return None
            self._feed(chunk)
        return self._found.popleft()

    def _feed(self, chunk: bytes) -> None:
        if self._ended:
            self._epilogue_bytes += len(chunk)
            if self._epilogue_bytes > MAX_EPILOGUE_BYTES:
                raise MalformedBody("There is data after the end of the form; send only the form.")
            return
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise MalformedBody("The form cannot be read; send it as multipart/form-data.") from None
        if self._ended:
            del self._parser  # breaks a reference cycle

    def _part_begins(self) -> None:
        self._headers, self._header_bytes = {}, 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if name is None:
            raise MalformedBody("A part of the form has no name in its Content-Disposition header; add one.")
        self._found.append(Part(name.decode("utf-8", "replace")[:64], b"filename" in options, self))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._found.append(data[start:end])

    def _form_ends(self) -> None:
        self._ended = True

    def _count(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise MalformedBody("The headers of a part of the form are too long; shorten them.")


@dataclass(frozen=True)
class Part:
    """A field or a file of a form."""

    name: str
    is_file: bool
    form: FormStream

    def chunks(self) -> AsyncIterator[bytes]:
        return self.form.content()

    async def content(self, max_bytes: float = math.inf) -> bytes:
        """All of it. Raises: MalformedBody if it is longer."""
        content = bytearray()
        async for chunk in self.chunks():
            content += chunk
            if len(content) > max_bytes:
                raise MalformedBody(f"The field {self.name} is too long; shorten it.", param=self.name)
        return bytes(content)

    async def text(self, max_bytes: float = MAX_FIELD_BYTES) -> str:
        """The part's content as text. Raises: MalformedBody if it is longer or is not UTF-8."""
        content = await self.content(max_bytes)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise MalformedBody(f"The field {self.name} is not valid UTF-8.", param=self.name) from None

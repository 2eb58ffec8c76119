"""A folder on its way as a tar within a form."""

import io
import os
import tarfile
from pathlib import Path

import httpx
import pytest

from sds_clip import Client, UnreadableFile
from sds_clip.client.upload import UploadFile
from tests.sds_clip.scripted import Answer, Asked, scripted


def file_in(asked: Asked) -> bytes:
    """The file within the form that a service was sent."""
    assert asked.headers["content-length"] == str(len(asked.body))
    boundary = asked.headers["content-type"].partition("boundary=")[2].encode()
    *_, file, end = asked.body.split(b"--" + boundary)
    assert end == b"--\r\n"
    return file.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def test_a_folder_is_packed_whole_with_names_of_any_kind(tmp_path: Path) -> None:
    files = {"b.txt": b"x" * 700, "a/" + "long" * 40 + ".txt": b"", "a/\u00e4 caption.txt": b"y" * 512}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "linked.txt").symlink_to(tmp_path / "b.txt")
    with scripted(Answer(202)) as server, Client(server.url) as client:
        client.upload_dataset(tmp_path, format="pairs", name="n", max_bad_share=0.5)
    with tarfile.open(fileobj=io.BytesIO(file_in(server.asked[0]))) as tar:
        found = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        assert all(member.isfile() for member in tar.getmembers())
        read = {name: file.read() for name, file in found.items() if file is not None}
    assert read == files | {"linked.txt": files["b.txt"]}
    for name, value in {"name": b"n", "format": b"pairs", "max_bad_share": b"0.5"}.items():
        assert f'name="{name}"\r\n\r\n'.encode() + value + b"\r\n" in server.asked[0].body


def test_an_archive_is_sent_as_it_is_under_its_name(tmp_path: Path) -> None:
    archive = tmp_path / "pairs.tar"
    archive.write_bytes(bytes(range(256)) * 10_000)
    with scripted(Answer(202)) as server, Client(server.url) as client:
        client.upload_dataset(archive, format="pairs")
    assert file_in(server.asked[0]) == archive.read_bytes()
    assert b'filename="pairs.tar"' in server.asked[0].body


def test_archive_whose_name_is_not_utf_8_is_sent(tmp_path: Path) -> None:
    archive = tmp_path / os.fsdecode(b"caf\xe9.tar")
    archive.write_bytes(b"bytes")
    with scripted(Answer(202)) as server, Client(server.url) as client:
        client.upload_dataset(archive, format="pairs", name="cafe")
    assert file_in(server.asked[0]) == b"bytes"
    assert b'filename="caf?.tar"' in server.asked[0].body


def test_folder_with_a_name_that_is_not_utf_8_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"bytes")
    with scripted(Answer(202)) as server, Client(server.url) as client:
        with pytest.raises(ValueError, match="UTF-8") as raised:
            client.upload_dataset(tmp_path, format="pairs", name="cafe")
        str(raised.value).encode()  # it can be printed
        assert server.asked == []


def test_what_cannot_be_packed_is_named_and_nothing_is_sent(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    empty = tmp_path / "empty"
    for folder in (inside, empty):
        folder.mkdir()
    (inside / "again").symlink_to(tmp_path)
    with scripted(Answer(202)) as server, Client(server.url) as client:
        with pytest.raises(ValueError, match="empty holds no files"):
            client.upload_dataset(empty, format="pairs")
        with pytest.raises(ValueError, match="again is a link to a folder"):
            client.upload_dataset(inside, format="pairs")
        with pytest.raises(UnreadableFile) as raised:
            client.upload_dataset(tmp_path / "none.tar", format="pairs")
        assert raised.value.param == "file"
        assert server.asked == []


def test_a_file_that_shrinks_while_it_is_sent_is_an_error_and_one_that_grows_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(b"12345")
    growing = UploadFile(tmp_path)
    file.write_bytes(b"1234567")
    form = httpx.Request("POST", "http://unused", files=growing.as_form_file())
    sent = form.read()
    assert b"12345" in sent
    assert b"123456" not in sent
    assert form.headers["Content-Length"] == str(len(sent))
    shrinking = UploadFile(tmp_path)
    file.write_bytes(b"123")
    with pytest.raises(OSError, match="became shorter"):
        httpx.Request("POST", "http://unused", files=shrinking.as_form_file()).read()

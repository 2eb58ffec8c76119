"""A folder on its way as a tar within a form."""

import io
import tarfile
from pathlib import Path

import pytest

from sds_clip.client.upload import Form


def packed(form: Form) -> tarfile.TarFile:
    """The archive within the form, whose announced length is checked."""
    content = b"".join(form.chunks())
    assert form.headers["Content-Length"] == str(len(content))
    boundary = form.headers["Content-Type"].partition("boundary=")[2].encode()
    *_, file, end = content.split(b"--" + boundary)
    assert end == b"--\r\n"
    return tarfile.open(fileobj=io.BytesIO(file.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")))


def test_a_folder_is_packed_whole_with_names_of_any_kind(tmp_path: Path) -> None:
    files = {"b.txt": b"x" * 700, "a/" + "long" * 40 + ".txt": b"", "a/\u00e4 caption.txt": b"y" * 512}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "linked.txt").symlink_to(tmp_path / "b.txt")
    with packed(Form(tmp_path, {"name": "n", "format": "pairs"})) as tar:
        found = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        assert all(member.isfile() for member in tar.getmembers())
        read = {name: file.read() for name, file in found.items() if file is not None}
    assert read == files | {"linked.txt": files["b.txt"]}


def test_what_cannot_be_packed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no files"):
        Form(tmp_path, {})
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "again").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="again is a link to a folder"):
        Form(inside, {})
    with pytest.raises(FileNotFoundError):
        Form(tmp_path / "none.tar", {})


def test_a_file_that_shrinks_while_it_is_sent_is_an_error_and_one_that_grows_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(b"12345")
    form = Form(tmp_path, {})
    file.write_bytes(b"1234567")
    with packed(form) as tar:
        member = tar.extractfile("log.txt")
        assert member is not None
        assert member.read() == b"12345"
    file.write_bytes(b"123")
    with pytest.raises(OSError, match="became shorter"):
        list(form.chunks())

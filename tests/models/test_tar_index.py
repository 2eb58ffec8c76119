import tarfile
from pathlib import Path

import pytest

from sds_clip.models.errors import ModelError
from sds_clip.models.images.tar_index import PatternError, expand_braces, read_members


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{a,b}/{8..10}", ["a/8", "a/9", "a/10", "b/8", "b/9", "b/10"]),
        ("{098..100}", ["098", "099", "100"]),
        ("{}a{b}", ["ab"]),
        ("a}{b", ["a}{b"]),
        ("{1,2..3}", ["1", "2..3"]),
        ("{{1,2},3}", ["{1,3}", "{2,3}"]),
        ("{a}" * 5000, ["a" * 5000]),
    ],
)
def test_braces_expand(pattern: str, names: list[str]) -> None:
    assert list(expand_braces(pattern)) == names


@pytest.mark.parametrize("pattern", ["{3..1}", "{1..3}{2..3}{1..6}", f"{{0..{10**17}}}{{0..{10**17}}}"])
def test_no_names_and_too_many_are_refused_before_the_first(pattern: str) -> None:
    with pytest.raises(PatternError):
        expand_braces(pattern, most=35)


def test_members_are_read_where_they_lie(tmp_path: Path) -> None:
    content = {"x/b.d.txt": b"one", ".hidden.txt": b"no", "a.JPG": b"two" * 400, "x/b.jpg": b""}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in content.items():
            (tmp_path / "file").write_bytes(data)
            archive.add(tmp_path / "file", name)
        archive.add(tmp_path, "folder", recursive=False)
    data = (tmp_path / "a.tar").read_bytes()
    found = [
        (member.key, member.extension, member.read(), data[member.offset :][: member.size])
        for member in read_members(tmp_path / "a.tar", ModelError)
    ]
    assert found == [
        ("x/b", "d.txt", b"one", b"one"),
        ("a", "jpg", b"two" * 400, b"two" * 400),
        ("x/b", "jpg", b"", b""),
    ]


def test_shard_without_its_end_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:512])
    with pytest.raises(ModelError):
        list(read_members(tmp_path / "a.tar", ModelError))

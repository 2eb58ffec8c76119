"""Which paths on the server callers may name."""

import errno
import os
from pathlib import Path

import pytest

from sds_clip.app.datasets.folders import Content
from sds_clip.app.datasets.roots import MAX_SHARDS, SourceRoots, expand
from sds_clip.app.errors import ConfigurationError, InvalidRequest, SourceForbidden, SourceMissing
from sds_clip.models.data.shards import expand as expand_in_training


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "set").mkdir(parents=True)
    for number in range(3):
        (root / f"{number:05d}.tar").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.tar").touch()
    (tmp_path / "root-not").mkdir()
    return root


def test_folder_and_shards_under_a_root_are_found(root: Path) -> None:
    roots = SourceRoots([root])
    assert roots.resolve(f"{root}/set") == Content((root / "set",), is_folder=True)
    assert roots.resolve(f"file://{root}/set/") == Content((root / "set",), is_folder=True)
    assert roots.resolve(str(root)) == Content((root,), is_folder=True)
    assert roots.resolve(f"{root}/00001.tar") == Content((root / "00001.tar",), is_folder=False)
    shards = tuple(root / f"{number:05d}.tar" for number in range(3))
    assert roots.resolve(f"{root}/{{00000..00002}}.tar") == Content(shards, is_folder=False)
    assert roots.resolve(f"{root}/0000{{2,0}}.tar") == Content((shards[2], shards[0]), is_folder=False)


@pytest.mark.parametrize(
    "source",
    ["{tmp}/secret", "{tmp}/secret/a.tar", "{tmp}/nothing", "{root}/../secret", "{root}/../nothing", "/", "/etc/passwd",
     "{tmp}/root-not", "{root}/link-out", "{root}/link-out/a.tar", "{root}/circle", "{root}/dangling",
     "{root}/{{00000,../secret/a}}.tar", "{root}/set/../../secret", "/proc/self/root/etc", "/dev/zero", "{tmp}"],
)  # fmt: skip
def test_everything_outside_the_roots_is_one_and_the_same_refusal(
    tmp_path: Path, root: Path, source: str
) -> None:
    (root / "link-out").symlink_to(tmp_path / "secret")
    (root / "circle").symlink_to(root / "circle")
    (root / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(SourceForbidden) as caught:
        SourceRoots([root]).resolve(source.format(tmp=tmp_path, root=root))
    assert (caught.value.code, caught.value.status, caught.value.param) == ("source_forbidden", 403, "source")


def test_link_that_stays_within_is_followed_and_its_end_is_given(tmp_path: Path, root: Path) -> None:
    (root / "alias").symlink_to(root / "set")
    (tmp_path / "alias-of-root").symlink_to(root)
    assert SourceRoots([root]).resolve(f"{root}/alias").paths == (root / "set",)
    roots = SourceRoots([tmp_path / "alias-of-root"])
    assert roots.resolve(f"{tmp_path}/alias-of-root/set").paths == (root / "set",)


@pytest.mark.parametrize(
    "source",
    ["", "set", "./set", "~/set", "pipe:cat /etc/passwd", "http://example.org/a.tar", "s3://bucket/a.tar",
     "FILE:///etc", "file:/etc", "file://host/etc", "\0", "/a\0b", "/" + "a" * 5000, "/\ud800",
     "/a/{2..1}.tar", "/a/{0..999999999}.tar", "/a/{0..999}{0..999}.tar", "/" + "{a,b}" * 40],
    ids=lambda source: ascii(source)[:40],
)  # fmt: skip
def test_what_is_no_path_is_refused_at_once(root: Path, source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SourceRoots([root]).resolve(source)
    assert type(caught.value) is InvalidRequest


def test_nothing_there_and_wrong_kinds_are_told(root: Path) -> None:
    os.mkfifo(root / "pipe")
    roots = SourceRoots([root])
    for source in (
        "nothing",
        "{00000..00003}.tar",
        "pipe",
        "{set,00000.tar}",
        "0000{0,1}.tar/x",
        "a" * 300,
        "{set," + "a" * 300 + "}",
        "set/" + "a" * 300 + "/b.tar",
        "a/" * 2000,
        "\U0001f600" * 1000,
        "\x01\n\x7f",
    ):
        with pytest.raises(SourceMissing):
            roots.resolve(f"{root}/{source}")


def test_path_that_the_server_may_not_look_at_is_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    roots = SourceRoots([root])
    monkeypatch.setattr(Path, "stat", denied)  # the tests may run as root, who may look everywhere
    with pytest.raises(SourceMissing):
        roots.resolve(f"{root}/set")


def test_without_roots_nothing_may_be_named(root: Path) -> None:
    with pytest.raises(SourceForbidden):
        SourceRoots([]).resolve(str(root))


def test_roots_that_open_too_much_or_are_not_there_stop_the_start(tmp_path: Path, root: Path) -> None:
    (tmp_path / "to-the-top").symlink_to("/")
    for path in (
        Path("/"),
        Path("//"),
        tmp_path / "to-the-top",
        root / "x",
        root / "00000.tar",
        Path("relative"),
    ):
        with pytest.raises(ConfigurationError):
            SourceRoots([root, path])


def test_links_within_a_registered_folder_may_not_lead_out(tmp_path: Path, root: Path) -> None:
    roots = SourceRoots([root])
    (root / "set" / "deep").mkdir()
    (root / "set" / "deep" / "within").symlink_to(root / "00000.tar")
    roots.check_links(root / "set")
    (root / "set" / "deep" / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceForbidden, match="deep/out"):
        roots.check_links(root / "set")
    SourceRoots([root, tmp_path / "secret"]).check_links(root / "set")


def test_links_of_a_folder_that_a_link_leads_to_may_not_lead_out_either(tmp_path: Path, root: Path) -> None:
    roots = SourceRoots([root])
    (root / "other").mkdir()
    (root / "set" / "link").symlink_to(root / "other")
    (root / "other" / "back").symlink_to(root / "set")
    (root / "other" / "a.png").touch()
    assert list(roots.files(root / "set")) == [root / "other" / "a.png"]
    (root / "other" / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceForbidden, match="other/out"):
        roots.check_links(root / "set")


@pytest.mark.parametrize(
    "pattern", ["/a", "/{a,b}/{8..10}.tar", "/{098..100}", "/{7..7}", "/{}", "/{a}", "/a}{b", "/{1..2}{3..4}"]
)
def test_braces_expand_as_in_training(pattern: str) -> None:
    assert list(expand(pattern)) == [str(path) for path in expand_in_training(pattern)]


def test_as_many_shards_as_are_allowed_expand() -> None:
    assert sum(1 for _ in expand(f"/{{1..{MAX_SHARDS}}}.tar")) == MAX_SHARDS

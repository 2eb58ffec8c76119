"""Names of any kind: none leads out of the folder, and the same ones are found to be the same."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.names import NameBook, decode_name, folded, is_clutter, member_parts
from sds_clip.app.errors import ArchiveTooLarge, InvalidArchive, shown

LIMITS = ArchiveLimits()
NASTY = st.text(st.sampled_from("./\\:\0\n~ C é\u0301ßſİ"), max_size=12)
NAMES = st.one_of(st.text(max_size=40), NASTY, st.lists(NASTY, max_size=8).map("/".join))


@given(NAMES)
def test_any_name_stays_below_its_folder_or_is_refused(name: str) -> None:
    try:
        parts = member_parts(decode_name(name.encode("utf-8", "surrogatepass")), LIMITS, is_folder=False)
    except InvalidArchive:
        return
    root = Path("/root/of/all")
    path = root.joinpath(*parts)
    assert path.is_relative_to(root)
    assert len(path.parts) == len(root.parts) + len(parts)
    assert not set(parts) & {"", ".", ".."}
    assert all(character.isprintable() or ord(character) > 127 for part in parts for character in part)


@pytest.mark.parametrize(
    "name",
    ["C:/a", "..\\a", "a\\b", "\x1b[2J", "d/" * 33 + "a", "/".join(["n" * 200] * 6), "é" * 128, ".", "d/."],
)
def test_name_that_leads_elsewhere_or_too_far_is_refused(name: str) -> None:
    with pytest.raises(InvalidArchive) as caught:
        member_parts(name, LIMITS, is_folder=False)
    assert caught.value.code == "archive_member_unsafe"
    assert caught.value.member == name
    assert caught.value.message.isprintable()


def test_slashes_and_dots_that_lead_nowhere_do_not_count() -> None:
    assert member_parts("./d//./a", LIMITS, is_folder=False) == ("d", "a")
    assert member_parts("./", LIMITS, is_folder=True) == ()


@given(st.binary(max_size=50))
def test_any_bytes_are_a_name_or_refused(raw: bytes) -> None:
    try:
        name = decode_name(raw)
    except InvalidArchive:
        with pytest.raises(UnicodeDecodeError):
            raw.decode()
    else:
        assert name.encode() == raw


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from(["NFC", "NFD"]),
)
def test_another_case_or_form_of_a_name_is_the_same_name(name: str, form: str) -> None:
    other = unicodedata.normalize(form, name)  # type: ignore[arg-type]
    assert folded(other) == folded(name)
    assert folded(folded(name)) == folded(name)
    assert folded(name.casefold()) == folded(name)


def test_different_names_stay_different() -> None:
    names = ["a", "b", "ａ", "²", "2", "é", "e", "ı", "i", "a ", "a."]
    assert len({folded(name) for name in names}) == len(names)


@given(
    st.lists(
        st.sampled_from(
            ["a", "A", "b", "a/a", "A/b", "a/B", "b/a/c", "b/A", "b/a", "é/x", "e\u0301/x", "É/y", "ς", "Σ"]
        ),
        max_size=6,
    )
)
def test_book_refuses_just_what_one_folder_without_cases_could_not_hold(names: list[str]) -> None:
    """Against a dictionary of folded paths, built anew for every name."""
    book = NameBook(LIMITS)
    held: dict[str, str] = {}
    for name in names:
        parts = tuple(name.split("/"))
        folders = {folded("/".join(parts[:depth])): "/".join(parts[:depth]) for depth in range(1, len(parts))}
        clash = folded(name) in held or any(
            held.get(key, "folder " + spelling) != "folder " + spelling for key, spelling in folders.items()
        )
        if clash:
            with pytest.raises(InvalidArchive) as caught:
                book.add(parts, is_folder=False)
            assert caught.value.code == "archive_member_duplicate"
            return
        book.add(parts, is_folder=False)
        held.update({key: "folder " + spelling for key, spelling in folders.items()})
        held[folded(name)] = "file"
        assert book.entries == len(held)


def test_entries_are_counted_with_their_folders() -> None:
    book = NameBook(ArchiveLimits(max_entries=4))
    book.add(("a", "b", "c"), is_folder=False)
    book.add(("a", "b", "d"), is_folder=False)
    book.add(("a", "b"), is_folder=True)
    assert book.entries == 4
    with pytest.raises(ArchiveTooLarge):
        book.add(("e",), is_folder=True)


@pytest.mark.parametrize(
    ("name", "clutter"),
    [
        ("__MACOSX/a", True),
        ("a/.DS_Store", True),
        ("a/._b.png", True),
        ("a/.b", False),
        ("a/__MACOSX", False),
    ],
)
def test_clutter_is_what_macos_adds(name: str, clutter: bool) -> None:
    assert is_clutter(tuple(name.split("/"))) is clutter


def test_shown_names_are_short_and_harmless() -> None:
    assert shown("a\n\x1b[2J\u202e") == r"'a\n\x1b[2J\u202e'"
    assert len(shown("x" * 10_000)) < 250

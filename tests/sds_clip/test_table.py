import pytest

from sds_clip.table import printable, size_text, table


def test_numbers_stand_right_and_text_left() -> None:
    assert table(["name", "score", "n"], [["a", 0.5, 3], ["long name", -12.25, 100]]).splitlines() == [
        "name          score    n",
        "a            0.5000    3",
        "long name  -12.2500  100",
    ]


def test_a_missing_number_leaves_its_cell_empty() -> None:
    assert table(["score", "text"], [[None, "x"], [1.0, "y"]]).splitlines() == [
        " score  text",
        "        x",
        "1.0000  y",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["image", "score"], []) == "image  score"


def test_wide_characters_keep_columns_aligned() -> None:
    first, second, third = table(["text", "n"], [["猫", 1], ["cat", 2]]).splitlines()
    assert (first, second, third) == ("text  n", "猫    1", "cat   2")


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\nb", "a\udcffb", "a\u202eb"])
def test_characters_that_steer_a_terminal_are_replaced(text: str) -> None:
    shown = printable(text)
    assert "\ufffd" in shown
    assert shown.isprintable() or set(shown) - {"\ufffd"} <= set("ab[31m")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1024**2 - 1, "1 MiB"), (5 * 2**40, "5120 GiB")],
)
def test_a_size_is_in_the_largest_unit_that_fits(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text

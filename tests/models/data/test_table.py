"""Tables of image and caption, NegCLIP's among them."""

from pathlib import Path

from sds_clip.models.data.pairs import Sample
from sds_clip.models.data.table import read_table


def test_table_with_open_clips_columns_and_tabs_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text('filepath\ttitle\nx/a.png\ta "quoted" dog\nb.png\t"one, ""two"""\n')
    pairs = read_table(file)
    assert [pairs.sample(index).name for index in range(2)] == ["x/a.png", "b.png"]
    assert [pairs.sample(index).captions[0] for index in range(2)] == ['a "quoted" dog', 'one, "two"']
    assert [pairs.ref(index).path for index in (0, 1)] == [tmp_path / "x/a.png", tmp_path / "b.png"]


def test_negclip_columns_are_read_and_its_images_ignored(tmp_path: Path) -> None:
    file = tmp_path / "neg.tsv"
    file.write_text(
        "\tfilepath\ttitle\tneg_caption\tneg_image\n"
        "0\ta.jpg\ta dog on a mat\t['a mat on a dog', \"it's\"]\t[1, 2]\n"
        "1\tb.jpg\ta cat\t[]\t[]\n"
        "2\ta.jpg\ta dog\t\t[]\n"
    )
    pairs = read_table(file)
    assert pairs.sample(0) == Sample("a.jpg", ("a dog on a mat", "a dog"), (("a mat on a dog", "it's"), ()))
    assert pairs.sample(1) == Sample("b.jpg", ("a cat",), ((),))


def test_csv_with_commas_and_other_columns_and_absolute_paths_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text('\ufeffimage,text\n/data/a.jpg,"red, blue"\n', encoding="utf-8")
    pairs = read_table(file, tmp_path / "images", image_key="image", caption_key="text")
    assert pairs.ref(0).path == Path("/data/a.jpg")
    assert pairs.sample(0).captions == ("red, blue",)


def test_stated_separator_is_used(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("filepath;title\na.jpg;x, y\n")
    assert read_table(file, separator=";").sample(0).captions == ("x, y",)
    file.write_text("filepath\ttitle\na.jpg\tx, y\n")
    assert read_table(file, separator=r"\t").sample(0).captions == ("x, y",)

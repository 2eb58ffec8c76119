import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sds_clip.cli import main


@pytest.fixture
def winoground(tmp_path: Path) -> Path:
    """Three items, the last with two equal images."""
    folder = tmp_path / "winoground"
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, tag in enumerate(["Object", "Relation", "Relation"]):
        for side in (0, 1):
            image = (
                Image.effect_noise((40, 40), 40 + 50 * side * (number != 2) + number) if number != 2 else None
            )
            (image or Image.new("RGB", (40, 40), "red")).save(folder / f"images/ex_{number}_img_{side}.png")
        lines.append(
            {
                "id": number,
                "image_0": f"ex_{number}_img_0",
                "image_1": f"ex_{number}_img_1",
                "caption_0": f"some {number} before others",
                "caption_1": f"others before some {number}",
                "tag": f"fine {tag}",
                "collapsed_tag": tag,
            }
        )
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def evaluate(checkpoint: Path, winoground: Path, *more: str) -> int:
    return main(
        ["evaluate", "winoground", "--model", f"local-dir:{checkpoint}", "--data", str(winoground), *more]
    )


def test_json_holds_every_share_and_tie(
    checkpoint: Path, winoground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, winoground, "--json") == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["model"]["precision"] == "float32"
    assert answer["overall"]["items"] == 3
    assert answer["overall"]["image_ties"] == 1
    assert {tag: metrics["items"] for tag, metrics in answer["by_collapsed_tag"].items()} == {
        "Object": 1,
        "Relation": 2,
    }
    assert list(answer["by_tag"]) == ["fine Object", "fine Relation"]


def test_the_file_lets_the_shares_be_computed_again(
    checkpoint: Path, winoground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert evaluate(checkpoint, winoground, "--out", str(out)) == 0
    answer = json.loads(out.read_text())
    text = image = 0
    for item in answer["items"]:
        (c0i0, c0i1), (c1i0, c1i1) = item["scores"]
        text += c0i0 > c1i0 and c1i1 > c0i1
        image += c0i0 > c0i1 and c1i1 > c1i0
    assert answer["overall"]["text_score"] == pytest.approx(text / 3)
    assert answer["overall"]["image_score"] == pytest.approx(image / 3)
    assert [item["id"] for item in answer["items"]] == ["0", "1", "2"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["result.json"]
    assert capsys.readouterr().out.splitlines()[0].split() == [
        *("items", "text", "%", "image", "%", "group", "%", "ties")
    ]


def test_the_table_has_a_line_for_all_and_for_each_tag(
    checkpoint: Path, winoground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, winoground) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split("  ")[0] for row in rows] == [
        "all",
        "Object",
        "Relation",
        "tag fine Object",
        "tag fine Relation",
    ]
    assert rows[0].split()[1] == "3"


def test_a_damaged_image_is_named(
    checkpoint: Path, winoground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (winoground / "images/ex_1_img_0.png").write_bytes(b"")
    assert evaluate(checkpoint, winoground) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ex_1_img_0.png" in captured.err
    assert captured.err.count("\n") == 1

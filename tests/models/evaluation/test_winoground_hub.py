import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.readers import read_benchmark
from sds_clip.models.evaluation.winoground import HUB_ID, unpack_winoground


def save_download(folder: Path, prefix: str = "images/") -> tuple[Path, Path]:
    line = {"id": 0, "caption_0": "a b", "caption_1": "b a"} | {
        f"image_{side}": f"ex_0_img_{side}" for side in (0, 1)
    }
    (folder / "examples.jsonl").write_text(json.dumps(line))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for side in (0, 1):
            buffer = io.BytesIO()
            Image.new("RGBA", (8, 8), (side * 200, 0, 0, 255)).save(buffer, "PNG")
            archive.writestr(f"{prefix}ex_0_img_{side}.png", buffer.getvalue())
            archive.writestr(f"__MACOSX/images/._ex_0_img_{side}.png", b"")
    return folder / "examples.jsonl", folder / "images.zip"


@pytest.mark.parametrize("prefix", ["", "images/", "../../", "/"])
def test_a_download_becomes_a_set_wherever_its_names_lead(tmp_path: Path, prefix: str) -> None:
    unpack_winoground(*save_download(tmp_path, prefix), tmp_path / "work/winoground")
    (item,) = read_benchmark("winoground", tmp_path / "work/winoground", work=tmp_path).items
    assert [region.path.name for region in item.images] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"examples.jsonl", "images.zip", "work"}
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["winoground"]


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    examples, images = save_download(tmp_path)
    images.write_bytes(images.read_bytes()[:50])
    with pytest.raises(EvaluationError, match=r"images\.zip"):
        unpack_winoground(examples, images, tmp_path / "work/winoground")
    assert not list((tmp_path / "work").iterdir())


def test_without_the_network_the_way_by_hand_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(EvaluationError, match=r"cannot be downloaded .*by hand"):
        read_benchmark("winoground", HUB_ID, work=tmp_path / "work")


def test_an_unknown_benchmark_is_refused_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no benchmark 'imagenet'.* winoground, colorswap"):
        read_benchmark("imagenet", tmp_path, work=tmp_path)

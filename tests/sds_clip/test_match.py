import json
import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from sds_clip.cli import main
from tests.sds_clip.transcript import test_transcript  # noqa: F401

TEXTS = ["a red circle", "two blue squares", "a horse"]


def by_open_clip(folder: Path, images: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and probabilities as open_clip's own README computes them, in float32."""
    reference = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(reference)
    model.eval()
    with torch.no_grad():
        image_features = model.encode_image(
            torch.stack([preprocess(image) for image in images]), normalize=True
        )
        text_features = model.encode_text(open_clip.get_tokenizer(reference)(TEXTS), normalize=True)
        cosines = image_features @ text_features.T
        return cosines, (model.logit_scale.exp() * cosines).softmax(dim=-1)


def test_json_equals_open_clip_also_beside_a_bad_image(
    checkpoint: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = map(str, photos)
    arguments = ["match", first, "none.png", *others, "--text", *TEXTS, "--model", f"local-dir:{checkpoint}"]
    assert main([*arguments, "--precision", "float32", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert [each["index"] for each in answer["results"]] == [0, 1, 2, 3]
    assert answer["results"].pop(1)["error"]["code"] == "file_unreadable"
    cosines, probabilities = by_open_clip(checkpoint, [Image.open(photo) for photo in photos])
    for row, result in enumerate(answer["results"]):
        assert result["image"] == str(photos[row])
        assert result["scores"] == pytest.approx(cosines[row].tolist(), abs=1e-5)
        assert result["probabilities"] == pytest.approx(probabilities[row].tolist(), abs=1e-5)
        assert result["best"] == int(cosines[row].argmax())
        assert result["best_text"] == TEXTS[result["best"]]
    assert len(answer["text_probabilities"]) == len(TEXTS)
    for of_images in answer["text_probabilities"]:
        assert len(of_images) == len(photos)
        assert sum(of_images) == pytest.approx(1, abs=1e-5)
    assert answer["model"]["name"] == f"local-dir:{checkpoint}"
    assert len(answer["model"]["version"]) == 64
    assert answer["model"]["precision"] == "float32"


def test_a_phone_photo_is_turned_upright(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upright = Image.effect_mandelbrot((60, 60), (-2, -1.5, 1, 1.2), 20).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown, turn by 90 degrees clockwise
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "bare.png")
    paths = [str(tmp_path / name) for name in ("upright.png", "lying.png", "bare.png")]
    arguments = ["match", *paths, "--text", *TEXTS, "--model", f"local-dir:{checkpoint}", "--json"]
    main([*arguments, "--precision", "float32"])
    first, second, bare = (result["scores"] for result in json.loads(capsys.readouterr().out)["results"])
    assert first == pytest.approx(second, abs=1e-6)
    assert first != pytest.approx(bare, abs=1e-6)


def test_the_table_shows_what_the_json_says(
    checkpoint: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["match", str(photos[0]), "--text", *TEXTS, "--model", f"local-dir:{checkpoint}"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"model", "results"}  # a single image is not compared with others
    result = answer["results"][0]
    assert main(arguments) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "cosine", "probability", "text", "best"]
    assert rows[0].startswith(str(photos[0]))
    for column, (row, text) in enumerate(zip(rows, TEXTS, strict=True)):
        assert text in row
        assert f"{result['scores'][column]:.4f}" in row
        assert f"{result['probabilities'][column]:.4f}" in row
        assert row.endswith("*") == (column == result["best"])


def test_siglip_probabilities_are_sigmoids_of_the_logits(
    siglip_folder: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["match", *map(str, photos), "--text", *TEXTS, "--model", f"local-dir:{siglip_folder}"]
    assert main([*arguments, "--precision", "float32", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for row, result in enumerate(answer["results"]):
        expected = [1 / (1 + math.exp(-logit)) for logit in result["logits"]]
        assert result["probabilities"] == pytest.approx(expected, rel=1e-4)
        assert [of_text[row] for of_text in answer["text_probabilities"]] == result["probabilities"]
        assert sum(result["probabilities"]) < 0.9


def test_a_large_jpeg_is_scaled_if_the_precision_says_so_and_evaluation_refuses_to(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grain = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(grain).save(tmp_path / "large.jpg")

    def scored(precision: str) -> tuple[str, list[float]]:
        arguments = [
            "match",
            str(tmp_path / "large.jpg"),
            "--text",
            *TEXTS,
            "--model",
            f"local-dir:{checkpoint}",
        ]
        assert main([*arguments, "--precision", precision, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        return answer["model"]["decoding"], answer["results"][0]["scores"]

    decodings, scores = zip(*map(scored, ("float32", "float32+scaled", "bfloat16+full")), strict=True)
    assert decodings == ("full", "scaled", "full")
    assert max(abs(one - other) for one, other in zip(scores[0], scores[1], strict=True)) > 1e-4
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps([{"image": "large.jpg", "caption": ["a red circle"]}]))
    evaluate = ["evaluate", "retrieval", "--data", str(captions), "--model", f"local-dir:{checkpoint}"]
    assert main([*evaluate, "--precision", "float32+scaled"]) != 0
    assert "'float32+scaled' is not one of" in capsys.readouterr().err

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from sds_clip.cli import main
from tests.sds_clip.transcript import test_transcript  # noqa: F401

LABELS = ["circle", "square", "star", "horse"]
TEMPLATES = ["a photo of a {}", "{} in a drawing"]


def by_open_clip(folder: Path, image: Path, templates: list[str]) -> torch.Tensor:
    """Probabilities of LABELS with open_clip's own zero-shot classifier, in float32."""
    reference = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(reference)
    model.eval()
    weights = open_clip.build_zero_shot_classifier(
        model, tokenizer=open_clip.get_tokenizer(reference), classnames=LABELS, templates=templates
    )
    with torch.no_grad():
        features = model.encode_image(preprocess(Image.open(image))[None], normalize=True)
        return (model.logit_scale.exp() * features @ weights).softmax(dim=-1)[0]


def test_predictions_equal_open_clip_s_classifier(
    checkpoint: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["classify", str(photos[0]), "--label", *LABELS, "--templates", *TEMPLATES]
    model = ["--model", f"local-dir:{checkpoint}", "--precision", "float32"]
    assert main([*arguments, *model, "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)["results"][0]["predictions"]
    expected = by_open_clip(checkpoint, photos[0], TEMPLATES)
    assert [each["index"] for each in predictions] == expected.argsort(descending=True).tolist()
    for each in predictions:
        assert each["label"] == LABELS[each["index"]]
        assert each["probability"] == pytest.approx(float(expected[each["index"]]), abs=1e-5)


@pytest.mark.parametrize(("name", "count"), [("simple", 7), ("openai", 80)])
def test_named_templates_are_open_clip_s(
    name: str, count: int, checkpoint: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"simple": open_clip.SIMPLE_IMAGENET_TEMPLATES, "openai": open_clip.OPENAI_IMAGENET_TEMPLATES}[
        name
    ]
    assert len(theirs) == count
    arguments = ["classify", str(photos[0]), "--label", *LABELS, "--templates", name, "--json"]
    assert main([*arguments, "--model", f"local-dir:{checkpoint}", "--precision", "float32"]) == 0
    predictions = json.loads(capsys.readouterr().out)["results"][0]["predictions"]
    expected = by_open_clip(checkpoint, photos[0], [template("{}") for template in theirs])
    for each in predictions:
        assert each["probability"] == pytest.approx(float(expected[each["index"]]), abs=1e-5)


def test_labels_come_from_a_file_too(
    checkpoint: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\ufeffcircle\n\n  square \r\nstar\n", encoding="utf-8")
    arguments = ["classify", str(photos[0]), "--label", "horse", "--labels-file", str(file), "--top-k", "9"]
    assert main([*arguments, "--model", f"local-dir:{checkpoint}", "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)["results"][0]["predictions"]
    assert {each["index"]: each["label"] for each in predictions} == {
        0: "horse",
        1: "circle",
        2: "square",
        3: "star",
    }

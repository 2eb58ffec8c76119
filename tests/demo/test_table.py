import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from open_clip import create_model_and_transforms, get_tokenizer
from PIL import Image

from sds_clip.demo.sets import CLASS_TEMPLATES, classification_set
from sds_clip.demo.validation import load_validation, validate
from sds_clip.demo.world import Split

ROOT = Path(__file__).parents[2]
REFERENCE = f"local-dir:{ROOT / 'demo' / 'student'}"


def table_of(split: str) -> str:
    command = [sys.executable, "-m", "sds_clip.demo.table", "--split", split]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def printed() -> str:
    return table_of("heldout")


def percentages(printed: str, row: str) -> list[float]:
    (line,) = [line for line in printed.splitlines() if line.startswith(f"| {row} |")]
    return [float(number) for number in re.findall(r"([\d.]+)%", line)]


def test_retrieval_and_winoground_rows_are_what_open_clip_computes(printed: str) -> None:
    model, _, _ = create_model_and_transforms(REFERENCE)
    expected = validate(model.eval(), load_validation(get_tokenizer(REFERENCE), Split.HELD_OUT))
    # One comparison that rounding turns is 1 of 512 pairs or 1 of 150 items.
    assert percentages(printed, "image to text") == [pytest.approx(100 * expected["image_to_text"], abs=0.25)]
    assert percentages(printed, "text to image") == [pytest.approx(100 * expected["text_to_image"], abs=0.25)]
    for kind in ("attributes", "objects", "relation"):
        scores = [100 * expected[f"{kind}_{score}"] for score in ("text", "image", "group", "group_match")]
        assert percentages(printed, kind) == pytest.approx(scores, abs=0.75)


def test_zero_shot_row_is_what_open_clip_computes(printed: str) -> None:
    model, _, preprocess = create_model_and_transforms(REFERENCE)
    tokenizer = get_tokenizer(REFERENCE)
    examples = classification_set(Split.HELD_OUT)
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(Image.fromarray(i)) for i in examples.images]))
        classes = []
        for label in examples.labels:
            texts = tokenizer([template.format(label) for template in CLASS_TEMPLATES])
            classes.append(model.encode_text(texts, normalize=True).mean(dim=0))
        scores = images @ torch.nn.functional.normalize(torch.stack(classes), dim=-1).T
    accuracy = (scores.argmax(dim=1) == torch.tensor(examples.targets)).float().mean().item()
    assert percentages(printed, "top 1") == [pytest.approx(100 * accuracy, abs=0.25)]


def assert_shown(printed: str, readme: str) -> None:
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if "%" in line]
    assert len(rows) == 10
    for row in rows:
        # Another machine's rounding may turn one comparison.
        assert percentages(readme, row) == pytest.approx(percentages(printed, row), abs=0.75)


@pytest.mark.long
def test_readme_shows_the_tables_as_printed(printed: str) -> None:
    readme, _ = (ROOT / "demo" / "README.md").read_text().split("## The teacher")
    held_out, validation = readme.split("--split validation")
    assert_shown(printed, held_out)
    assert_shown(table_of("validation"), validation)

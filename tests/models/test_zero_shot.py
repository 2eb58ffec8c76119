from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.zero_shot_metadata import (
    IMAGENET_CLASSNAMES,
    OPENAI_IMAGENET_TEMPLATES,
    SIMPLE_IMAGENET_TEMPLATES,
)

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.zero_shot import (
    LABEL_SETS,
    TEMPLATE_SETS,
    class_weights,
    fill,
    prompts,
)

LABELS = ["red cube", "ball", "Queen's {} hat"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (TEMPLATE_SETS["simple"], SIMPLE_IMAGENET_TEMPLATES),
        (TEMPLATE_SETS["openai"], OPENAI_IMAGENET_TEMPLATES),
    ],
    ids=["simple", "openai"],
)
def test_templates_write_what_open_clips_functions_write(
    ours: tuple[str, ...], theirs: tuple[Callable[[str], str], ...]
) -> None:
    assert prompts(LABELS, ours) == [template(label) for label in LABELS for template in theirs]


def test_imagenet_has_its_thousand_labels() -> None:
    assert list(LABEL_SETS["imagenet"]) == list(IMAGENET_CLASSNAMES)
    assert len(LABEL_SETS["imagenet"]) == 1000


def test_prompts_go_label_by_label() -> None:
    assert prompts(["a", "b"], ["x {}", "{c} y"]) == ["x a", "a y", "x b", "b y"]


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{} and {c}", "cat and cat"),
        ("{0.__class__} {}", "{0.__class__} cat"),
        ("{c.__init__.__globals__} {}", "{c.__init__.__globals__} cat"),
        ("100 % {} {{", "100 % cat {{"),
    ],
)
def test_template_is_filled_literally(template: str, filled: str) -> None:
    assert fill(template, "cat") == filled


def test_label_is_never_a_template() -> None:
    assert fill("a {} on {c}", "{c} {}") == "a {c} {} on {c} {}"


def test_template_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no \{\} for the label"):
        prompts(["a"], ["a photo"])


def test_class_weights_equal_open_clips(tiny_folder: Path) -> None:
    clip = load_clip(f"local-dir:{tiny_folder}", precision="float32")
    labels, templates = list(LABEL_SETS["imagenet"][:12]), list(TEMPLATE_SETS["openai"][:5])
    theirs = open_clip.build_zero_shot_classifier(
        open_clip.create_model(f"local-dir:{tiny_folder}").eval(),
        open_clip.get_tokenizer(f"local-dir:{tiny_folder}"),
        labels,
        templates,
    )
    features = clip.encode_text(clip.tokenizer(prompts(labels, templates)), normalize=False)
    torch.testing.assert_close(class_weights(features, len(templates)), theirs.T, atol=1e-6, rtol=0)

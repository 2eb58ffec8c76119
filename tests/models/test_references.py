from __future__ import annotations

import subprocess
import sys

import pytest

from sds_clip.models.checkpoints.references import (
    BadReferenceError,
    Demo,
    Folder,
    Hub,
    Published,
    Reference,
    WeightsFile,
    parse,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo", Demo()),
        (" demo ", Demo()),
        ("demo-pictures", Demo("demo-pictures")),
        ("ViT-B-32/openai", Published("ViT-B-32", "openai")),
        ("ViT-B-32", Published("ViT-B-32", "openai")),
        ("ViT-B/32", Published("ViT-B-32", "openai")),
        ("ViT-B/32/openai", Published("ViT-B-32", "openai")),
        ("ViT-L/14@336px", Published("ViT-L-14-336", "openai")),
        ("ViT-B/32-quickgelu/metaclip_400m", Published("ViT-B-32-quickgelu", "metaclip_400m")),
        ("ViT-B-16-SigLIP/webli", Published("ViT-B-16-SigLIP", "webli")),
        ("hf-hub:org/repo", Hub("org/repo")),
        ("local-dir:models/mine", Folder("models/mine")),
        ("./mine", Folder("./mine")),
        ("/models/mine", Folder("/models/mine")),
        ("local-dir:runs/mine#alpha=0.5", Folder("runs/mine", 0.5)),
        ("./mine#alpha=1", Folder("./mine", 1.0)),
        ("/runs#1/mine", Folder("/runs#1/mine")),
        ("/runs#alpha=2/mine#alpha=0", Folder("/runs#alpha=2/mine", 0.0)),
        ("/w/a.safetensors@ViT-B-32", WeightsFile("/w/a.safetensors", "ViT-B-32")),
        ("a.safetensors@ViT-B/32+gelu", WeightsFile("a.safetensors", "ViT-B-32", False)),
        ("a@b.safetensors@ViT-B-32+quickgelu", WeightsFile("a@b.safetensors", "ViT-B-32", True)),
    ],
)
def test_reference_is_read(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "demo",
        "ViT-B-32/openai",
        "hf-hub:org/repo",
        "local-dir:/a b",
        "local-dir:/a#alpha=0.3",
        "local-dir:/a#alpha=1e-05",
        "/a.safetensors@RN50+gelu",
        "a.safetensors@RN50",
    ],
)
def test_normal_form_names_the_same_checkpoint(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "demo"),
        ("a\x00b", "control"),
        ("hf-hub:repo", "hf-hub:organisation/name"),
        ("hf-hub:a/b/c", "hf-hub:organisation/name"),
        ("local-dir:", "local-dir:/models/mine"),
        ("local-dir:#alpha=0.5", "local-dir:/models/mine"),
        ("local-dir:mine#alpha=2", "from 0 (the base) to 1"),
        ("./mine#alpha=-0.1", "from 0 (the base) to 1"),
        ("./mine#alpha=nan", "from 0 (the base) to 1"),
        ("./mine#alpha=half", "from 0 (the base) to 1"),
        ("./mine.pt#alpha=0.5", "sds-clip convert"),
        ("weights.safetensors", "@ViT-B-32"),
        ("weights.safetensors@ViT-B-32+swish", "gelu or quickgelu"),
        ("weights.safetensors@", "architecture"),
        ("epoch_32.pt", "sds-clip convert epoch_32.pt"),
        ("/w/pytorch_model.bin", "sds-clip convert"),
        ("local-dir:/w/a.pth", "sds-clip convert"),
        ("what is this", "ViT-B-32/openai"),
    ],
)
def test_other_words_are_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(BadReferenceError) as refused:
        parse(text)
    assert advice in str(refused.value)


def test_reading_a_reference_imports_nothing_heavy() -> None:
    code = "import sys, sds_clip.models.checkpoints.references as _; "
    code += "print(sorted({'torch', 'open_clip', 'numpy'} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"

"""The model card of an exported folder: what is known, and nothing else."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from sds_clip.models.checkpoints.delta import save_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import Hub, parse
from sds_clip.models.errors import CheckpointError
from sds_clip.models.evaluation.results import Metric, Results, write_results
from sds_clip.models.export.model_card import _front_matter as front_matter
from sds_clip.models.export.write import export_full
from tests.deltas import save_tuned, tuned_copy

DATA_HASH, RESULTS_HASH = "5e" * 32, "ab" * 32


@pytest.fixture
def delta(tiny_folder: Path, tmp_path: Path) -> Path:
    """A delta as a run leaves it, in a folder of its own."""
    base = load_clip(str(tiny_folder), precision="float32")
    return save_delta(
        tmp_path / "run" / "delta",
        base,
        tuned_copy(base),
        configuration={"objective": "sds-clip", "sds_weight": 0.5, "teacher": "/home/me/sd", "data": "/home/me/pairs"},
        data={"data_hash": DATA_HASH, "data_size": 128, "teacher_version": None, "base_version": base.version},
        metrics={"base_validation_loss": 2.5, "validation_loss": 1.25},
    )  # fmt: skip


def results_of(version: str, file: Path) -> Path:
    metric = Metric(0.642, 0.601, 0.683, n=600, chance=0.5, outcome="group_match")
    file.parent.mkdir(parents=True, exist_ok=True)
    provenance = {"model_version": version, "data_hash": RESULTS_HASH, "precision": "float32"}
    write_results(
        file, Results("winoground", "group_match", "group_match", {"group_match": metric}, {}, (), provenance)
    )
    return file


def card_of(reference: str, tmp_path: Path, **options: Any) -> str:
    exported = export_full(reference, tmp_path / "exported", **options)
    return (exported / "README.md").read_text()


def test_card_of_a_delta_has_its_lineage_data_options_and_validation(delta: Path, tmp_path: Path) -> None:
    card = card_of(str(delta), tmp_path)
    clip = load_clip(str(delta))
    for known in (clip.version, DATA_HASH, "128", '"objective": "sds-clip"', '"sds_weight": 0.5', "`sd`"):
        assert known in card
    assert re.search(r"base's version \| `[0-9a-f]{64}`", card)
    assert "| `validation_loss` | 2.5 | 1.25 |" in card


@pytest.mark.parametrize("format", ["open_clip", "transformers"])
def test_front_matter_is_what_the_hub_reads(format: Any, delta: Path, tmp_path: Path) -> None:
    card = ModelCard(card_of(str(delta), tmp_path, format=format))
    assert card.data.library_name == format
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert card.data.tags == ["clip", "sds-clip"]


def test_nothing_of_the_machine_and_nothing_unknown_is_in_it(delta: Path, tmp_path: Path) -> None:
    card = card_of(str(delta), tmp_path)
    for absent in (
        "/home/me",
        str(tmp_path),
        "license",
        "base_model",
        "None",
        "null",
        "## Figures",
        "## Checked",
    ):
        assert absent not in card


@pytest.mark.parametrize(
    ("reference", "base"),
    [
        ("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("demo", None),
    ],
)
def test_base_model_is_named_as_the_hub_names_it(reference: str, base: str | None) -> None:
    content = yaml.safe_load(front_matter(parse(reference), "onnx").strip("-"))
    assert content.get("base_model") == base
    assert "base_model_relation" not in content


def test_figures_beside_the_delta_are_found_with_their_intervals(delta: Path, tmp_path: Path) -> None:
    version = load_clip(str(delta)).version
    results_of(version, delta.parent / "winoground" / "results.json")
    results_of("0" * 64, delta.parent / "other" / "results.json")
    (delta.parent / "broken").mkdir()
    (delta.parent / "broken" / "results.json").write_text("{")
    card = card_of(str(delta), tmp_path)
    row = f"| `winoground` | `group_match` | 64.2 | 60.1 to 68.3 | 50.0 | 600 | `{RESULTS_HASH}` |"
    assert card.count("| `winoground` |") == 1
    assert row in card


def test_named_results_must_be_of_the_exported_version(delta: Path, tmp_path: Path) -> None:
    other = results_of("0" * 64, tmp_path / "other.json")
    with pytest.raises(CheckpointError, match=r"other\.json has the results of version 000000000000"):
        card_of(str(delta), tmp_path, results=[other])
    with pytest.raises(CheckpointError, match=r"cannot be read as the results"):
        card_of(str(delta), tmp_path, results=[tmp_path / "missing.json"])
    ours = results_of(load_clip(str(delta)).version, tmp_path / "ours.json")
    assert "60.1 to 68.3" in card_of(str(delta), tmp_path, results=[ours])


def test_blend_says_of_what_and_has_no_figures_of_the_whole_delta(delta: Path, tmp_path: Path) -> None:
    results_of(load_clip(str(delta)).version, delta.parent / "winoground" / "results.json")
    card = card_of(str(delta), tmp_path, alpha=0.7)
    assert "0.3 of the base and 0.7 of the fine-tuned weights" in card
    assert "60.1" not in card


def test_delta_of_a_delta_names_both(delta: Path, tmp_path: Path) -> None:
    top = save_tuned(tmp_path / "top", load_clip(str(delta), precision="float32"), seed=1)
    card = card_of(str(top), tmp_path)
    first, second = (
        card.index(load_clip(str(path)).version, card.index("## Lineage")) for path in (delta, top)
    )
    assert first < second


HOSTILE = "x` </code>| <img src=x onerror=alert(1)> [a](https://evil.example) **b** www.evil.com \\| <!-- \\` `` a@b.c"
HOSTILE_FOLDER = 'n"`|<img src=x>[a](www.evil.example)\\'


def rendered_by_markdown_it(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def rendered_by_markdown(text: str) -> str:
    return markdown.markdown(text, extensions=["tables", "fenced_code"])


class Page(HTMLParser):
    """The tags of a page, and the texts of its inline code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.codes: list[str] = []
        self._is_in_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert all(name in ("class", "style") for name, _ in attrs)
        if tag == "code":
            self._is_in_code = True
            self.codes.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_in_code = self._is_in_code and tag != "code"

    def handle_data(self, data: str) -> None:
        if self._is_in_code:
            self.codes[-1] += data

    def handle_comment(self, data: str) -> None:
        pytest.fail(f"there is a comment: {data}")


@pytest.fixture
def hostile(tiny_folder: Path, tmp_path: Path) -> Path:
    """The card of a delta whose texts, and whose base's folder, try to be markup."""
    base = load_clip(str(shutil.copytree(tiny_folder, tmp_path / HOSTILE_FOLDER)), precision="float32")
    delta = save_delta(
        tmp_path / "run" / "delta", base, tuned_copy(base),
        configuration={"teacher": HOSTILE, "note": f"{HOSTILE}\n```\n# {HOSTILE}"},
        data={"data_hash": f"{HOSTILE}\n---\nlicense: mit\n"}, metrics={HOSTILE: HOSTILE, "loss": 1.5},
    )  # fmt: skip
    metric = Metric(0.642, 0.601, 0.683, n=12_345)
    provenance = {"model_version": load_clip(str(delta)).version, "data_hash": HOSTILE}
    (delta.parent / "evil").mkdir()
    write_results(
        delta.parent / "evil" / "results.json",
        Results(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: metric}, {}, (), provenance),
    )
    return export_full(str(delta), tmp_path / 'out"```\\n<img src=x>') / "README.md"


def test_hostile_texts_add_nothing_to_the_front_matter(hostile: Path) -> None:
    card = hostile.read_text()
    assert list(yaml.safe_load(card.split("\n---\n")[0])) == ["library_name", "pipeline_tag", "tags"]
    assert ModelCard(card).data.license is None


@pytest.mark.parametrize("rendered", [rendered_by_markdown_it, rendered_by_markdown])
def test_hostile_texts_are_shown_and_are_no_markup(rendered: Callable[[str], str], hostile: Path) -> None:
    card = hostile.read_text()
    page = Page(rendered(card.split("\n---\n", 1)[1]))
    assert page.tags <= {
        "h1", "h2", "p", "ul", "li", "pre", "code", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    # The teacher, the validation's figure and its value, the benchmark, its figure and its data.
    assert page.codes.count(HOSTILE) == 6
    assert f"{HOSTILE} --- license: mit" in page.codes
    assert HOSTILE_FOLDER in page.codes
    (loading,) = (block for block in page.codes if "import open_clip" in block)
    compile(loading, "README.md", "exec")
    assert repr(f"local-dir:{hostile.parent.name}") in ast.dump(ast.parse(loading))
    assert "12345" in card


def test_base_on_the_hub_cannot_break_the_front_matter() -> None:
    named = Hub('org/a: [b]"\nlicense: mit')
    content = yaml.safe_load(front_matter(named, "onnx").strip("-"))
    assert content["base_model"] == named.repository
    assert "license" not in content

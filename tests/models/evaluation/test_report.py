import base64
import hashlib
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.report import render_report, write_report
from sds_clip.models.evaluation.report.content import axis_mark
from sds_clip.models.evaluation.report.gallery import IMAGES, SHOWN
from sds_clip.models.evaluation.results import Metric, Results
from sds_clip.models.evaluation.winoground import winoground_benchmark
from sds_clip.models.images.ref import ImageRef
from tests.benchmark_sets import save_set
from tests.models.evaluation.fixed_scorer import FixedScorer
from tests.report_runs import ATTACK, COLOURS, attacked, two_runs

# Scores [caption][image] of one item.
ALL_RIGHT = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [[0.3, 0.6], [0.2, 0.7]]
TEXT_TIE = [[0.5, 0.4], [0.5, 0.8]]
ALL_WRONG = [[0.1, 0.9], [0.8, 0.2]]

Attributes = dict[str, str | None]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Document(HTMLParser):
    """Reads a page, and fails where an element is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.texts: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._section: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if text and "style" not in self._open:
            if self._open[-1] == "h2":
                self._section = self.sections.setdefault(text, [])
            self.texts.append(text)
            self._section.append(text)

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Results, Results]:
    return two_runs(tmp_path)


def compared(before: Results, after: Results) -> Document:
    return Document(render_report(after, compare(before, after), before))


def test_page_is_one_file_that_loads_nothing(runs: tuple[Results, Results]) -> None:
    page = compared(*runs)

    assert {"script", "link", "iframe", "object", "form", "base", "style"} & {
        tag for tag, _ in page.elements
    } == {"style"}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("style", "href") for name in attributes)
        assert (
            str(attributes.get("src", "data:")).startswith("data:image/webp;base64,")
            or "src" not in attributes
        )


def test_policy_allows_the_pages_own_style_and_nothing_else(runs: tuple[Results, Results]) -> None:
    html = render_report(runs[1])
    (policy,) = [
        str(meta["content"])
        for meta in Document(html).all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    style = html[html.index("<style>") + len("<style>") : html.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("with_baseline", [True, False])
def test_text_from_outside_stays_text(runs: tuple[Results, Results], with_baseline: bool) -> None:
    before, after = map(attacked, runs)
    html = render_report(after, compare(before, after), before) if with_baseline else render_report(after)
    page = Document(html)

    assert "script" not in {tag for tag, _ in page.elements}
    assert not any("onerror" in attributes for _, attributes in page.elements)
    shown = " ".join(ATTACK.split())
    # Benchmark (heading, title), model, figure, tag, id, captions, settings' key and value at the least.
    assert sum(shown in text for text in page.texts) >= 8
    assert any(ATTACK in str(image["alt"]) for image in page.all("img"))


def test_text_that_cannot_be_written_is_replaced(runs: tuple[Results, Results], tmp_path: Path) -> None:
    after = runs[1]
    item = replace(after.items[1], captions=("lone \ud800 surrogate", "null \x00 and escape \x1b"))
    items = (after.items[0], item, *after.items[2:])

    page = Document(write_report(tmp_path, replace(after, items=items)).read_text("utf-8"))

    assert "lone \ufffd surrogate" in page.texts
    assert "null \ufffd and escape \ufffd" in page.texts


def test_every_picture_is_small_cut_to_its_box_and_described(runs: tuple[Results, Results]) -> None:
    images = compared(*runs).all("img")

    # Items 0, 1, 4 improved, 2, 6, 5 worsened; 3 rose. 5 lacks one of its files.
    assert len(images) == 2 * 7 - 1
    for number, attributes in enumerate(images[:2]):
        data = base64.b64decode(str(attributes["src"]).partition("base64,")[2])
        picture = PIL.Image.open(io.BytesIO(data))
        assert picture.format == "WEBP"
        assert picture.size == ((240, 320), (300, 200))[number]
        assert (str(picture.width), str(picture.height)) == (attributes["width"], attributes["height"])
        extremes = picture.convert("RGB").resize((8, 8)).getextrema()
        assert all(abs(end - COLOURS[number][band]) < 12 for band in range(3) for end in extremes[band])
    assert images[0]["alt"] == "Image 1 of 2, item item-1: red 1"
    assert all(attributes["alt"] for attributes in images)


def test_box_that_leaves_the_image_is_cut_and_one_outside_ignored(
    runs: tuple[Results, Results], tmp_path: Path
) -> None:
    after = runs[1]
    boxes = ((500, 300, 400, 400), (900, 900, 10, 10))
    item = replace(after.items[1], images=tuple(ImageRef(tmp_path / "0.png", box) for box in boxes))

    images = Document(render_report(replace(after, items=(item,)))).all("img")

    assert [(image["width"], image["height"]) for image in images] == [("100", "100"), ("320", "213")]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_metadata_of_an_image_is_not_published(
    runs: tuple[Results, Results], tmp_path: Path, format: str
) -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "taken at home"
    file = tmp_path / "private"
    PIL.Image.new("RGB", (50, 50)).save(file, format, exif=exif, icc_profile=b"taken at home")
    assert b"taken at home" in file.read_bytes()
    item = replace(runs[1].items[0], images=(ImageRef(file),))

    (image,) = Document(render_report(replace(runs[1], items=(item,)))).all("img")

    published = base64.b64decode(str(image["src"]).partition("base64,")[2])
    assert PIL.Image.open(io.BytesIO(published)).info.keys().isdisjoint({"exif", "icc_profile"})
    assert b"taken at home" not in published


def test_image_that_is_gone_leaves_its_description(runs: tuple[Results, Results]) -> None:
    page = compared(*runs)

    assert "Image 1 of 2, item item-5: red 5 (the file cannot be read)" in page.texts


def test_items_that_turned_come_first_then_those_whose_margin_moved_most(
    runs: tuple[Results, Results],
) -> None:
    page = compared(*runs)

    def ids(section: str) -> list[str]:
        return [text for text in page.sections[section] if text.startswith("item-")]

    # 0 is gained by 0.30 and 1 by 0.35; 4 rose by 0.20, 3 by 0.05.
    assert ids("Most improved items") == ["item-1", "item-0", "item-4", "item-3"]
    # 2 is lost; 6 fell by 0.30, 5 by 0.01.
    assert ids("Most worsened items") == ["item-2", "item-6", "item-5"]


def test_teacher_is_told_from_a_clip_of_the_same_name(runs: tuple[Results, Results]) -> None:
    before, after = runs
    teacher = replace(after, provenance={**after.provenance, "model": "base", "scorer": "diffusion"})
    texts = Document(render_report(teacher, compare(before, teacher), before)).texts
    assert any("base (diffusion score)" in text for text in texts)


def test_a_seed_of_nothing_that_was_drawn_is_none(runs: tuple[Results, Results]) -> None:
    before, after = (
        replace(run, provenance={"seed": seed}) for run, seed in zip(runs, (None, 3), strict=True)
    )
    texts = compared(before, after).texts
    assert texts[texts.index("seed") :][:3] == ["seed", "none", "3"]


def test_margins_of_two_scorers_are_not_subtracted(runs: tuple[Results, Results]) -> None:
    before, after = runs
    page = compared(replace(before, provenance=before.provenance | {"scorer": "diffusion"}), after)

    assert len([text for text in page.sections["Most improved items"] if text.startswith("item-")]) == 2
    assert any("different scales" in text for text in page.sections["Score margins"])


def test_changes_are_those_worked_out_by_hand(runs: tuple[Results, Results]) -> None:
    # Right before: 2, 3, 5; after: 0, 1, 3, 5. So 2 gained and 1 lost of 8: p 4/8 one-sided, 1 two-sided.
    section = compared(*runs).sections["What changed"]
    assert "paired bootstrap intervals (10000 resamples, seed 0)" in section[-1]
    group = section[section.index("group") : section.index("text")]

    assert group[1:4] == ["8 items", "37.5 % →", "50.0 %"]
    assert group[4] == "2 gained, 1 lost"
    assert "+12.5" in group
    assert group[-2:] == ["p = 0.50 better", "p = 1.00 two-sided"]


@pytest.fixture
def matched(tmp_path: Path) -> tuple[Results, Results]:
    """Four items: by GroupMatch 3 and then 4 are right."""
    benchmark = winoground_benchmark(
        save_set(tmp_path / "set", 4, collapsed_tag=["Object", "Relation", "Relation", "Both"])
    )
    before = {"0": ALL_RIGHT, "1": TEXT_ONLY, "2": TEXT_TIE, "3": ALL_WRONG}
    scorers = (FixedScorer(before), FixedScorer(before | {"3": TEXT_ONLY}))
    first, second = (run_benchmark(benchmark, scorer) for scorer in scorers)
    return first, second


def test_group_match_stands_with_d_prime_and_chance_over_all_and_by_tag(
    matched: tuple[Results, Results],
) -> None:
    page = Document(render_report(matched[0]))

    scores = page.sections["Scores"]
    match = scores[scores.index("group_match") :][:5]
    assert match == ["group_match", "4 items", "chance 50.0 %", "75.0 %", "30.1 to 95.4"]
    d_prime = matched[0].metrics["group_match"].d_prime
    assert scores[scores.index("group_match") + 5] == f"d\u2032 {d_prime:.2f}"
    assert scores[scores.index("group_score") :][3] == "chance 16.7 %"
    by_tag = page.sections["By tag"]
    assert by_tag[by_tag.index("Relation: group_match") :][:4] == [
        "Relation: group_match", "2 items", "chance 50.0 %", "100.0 %",
    ]  # fmt: skip
    lead = " ".join(page.texts)
    assert "group_match is 75.0 % (95 % interval 30.1 to 95.4) over 4 items" in lead


def test_a_score_below_its_chance_is_called_so(matched: tuple[Results, Results]) -> None:
    wrong = replace(matched[0].metrics["group_score"], value=0.1)
    results = replace(matched[0], metrics={**matched[0].metrics, "group_score": wrong})
    assert "noise alone" in " ".join(Document(render_report(results)).texts)
    assert "noise alone" not in " ".join(Document(render_report(matched[0])).texts)


def test_group_match_is_compared_with_mcnemars_test_over_all_and_by_tag(
    matched: tuple[Results, Results],
) -> None:
    page = compared(*matched)

    changed = page.sections["What changed"]
    match = changed[changed.index("group_match") :][:10]
    assert match[1:6] == ["4 items", "chance 50.0 %", "75.0 % →", "100.0 %", "1 gained, 0 lost"]
    assert match[-2:] == ["p = 0.50 better", "p = 1.00 two-sided"]
    by_tag = page.sections["By tag"]
    assert by_tag[by_tag.index("Both: group_match") :][3:5] == ["0.0 % →", "100.0 %"]
    assert "group_match went from 75.0 % to 100.0 %" in " ".join(page.texts)


def test_every_item_shows_its_four_scores_before_and_after(matched: tuple[Results, Results]) -> None:
    before, after = matched

    alone = Document(render_report(after)).sections["Items most clearly right"]
    item = alone[alone.index("0") :]
    header = item.index("Score")
    assert item[header : header + 9] == [
        "Score", "Image 1", "Image 2",
        "Caption 1", "0.9000", "0.1000",
        "Caption 2", "0.2000", "0.8000",
    ]  # fmt: skip
    improved = compared(before, after).sections["Most improved items"]
    first = improved.index("Caption 1")
    assert improved[first : first + 3] == ["Caption 1", "0.1000 → 0.3000", "0.9000 → 0.6000"]


def test_an_item_without_four_scores_has_no_table(runs: tuple[Results, Results]) -> None:
    assert "Caption 1" not in Document(render_report(runs[1])).texts


def test_changes_have_their_chance_line_and_an_axis_with_numbers(matched: tuple[Results, Results]) -> None:
    before, after = matched
    page = compared(before, after)

    header = page.sections["What changed"]
    at = header.index("Difference in points")
    assert header[at + 1 : at + 4] == ["\u221250", "0", "+50"]  # one gained of four items: up to 75 points
    lines = [line for line in page.all("line") if line["class"] == "chance"]
    shown = sum(len(run.metrics) for run in matched)  # one mark by each bar of the scores
    assert len(lines) == shown + len(compare(before, after).outcomes) + 2 * len(before.by_tag)


@pytest.mark.parametrize(
    ("limit", "mark"),
    [(0.0105, 1), (0.0199, 1), (0.02, 2), (0.0525, 5), (0.0999, 5), (0.105, 10), (1.05, 100)],
)
def test_an_axis_is_marked_at_round_numbers(limit: float, mark: float) -> None:
    assert axis_mark(limit) == mark


def test_tags_are_compared_each(runs: tuple[Results, Results]) -> None:
    # Relation: items 0, 2, 4, 6; Object: 1, 3, 5, 7.
    section = compared(*runs).sections["By tag"]

    assert section[section.index("Relation") + 1 :][:4] == [
        "4 items",
        "25.0 % →",
        "25.0 %",
        "1 gained, 1 lost",
    ]
    assert section[section.index("Object") + 1 :][:4] == ["4 items", "50.0 % →", "75.0 %", "1 gained, 0 lost"]


def test_page_without_a_baseline_has_no_gaps(runs: tuple[Results, Results]) -> None:
    page = Document(render_report(runs[1]))

    *first, wrong, _, last = page.sections
    assert [*first, last] == ["Scores", "By tag", "Score margins", "Where the figures come from"]
    assert not any("baseline" in text or "None" in text or "nan" in text for text in page.texts)
    ids = [text for text in page.sections[wrong] if text.startswith("item-")]
    assert ids == ["item-6", "item-2", "item-4"]


def test_page_without_items_or_tags_still_has_its_scores(runs: tuple[Results, Results]) -> None:
    bare = replace(runs[1], items=(), by_tag={}, provenance={})

    page = Document(render_report(bare))

    assert list(page.sections) == ["Scores"]
    assert "50.0 %" in page.sections["Scores"]
    assert "30.0 to 70.0" in page.sections["Scores"]


def test_margins_that_are_not_numbers_are_left_out(runs: tuple[Results, Results]) -> None:
    after = runs[1]
    broken = replace(after.items[0], margins={"text": math.nan, "group": math.nan})

    page = Document(render_report(replace(after, items=(broken, *after.items[1:]))))

    assert not any("nan" in text for text in page.texts)


def test_primary_mean_over_tags_has_its_row(runs: tuple[Results, Results]) -> None:
    # Unequal tags, so that the mean over tags is not the mean over items: Object keeps items 1 and 3.
    def macro(run: Results) -> Results:
        items = tuple(item for item in run.items if item.id not in ("item-5", "item-7"))
        shares = [
            [item.correct["group"] for item in items if tag in item.tags] for tag in ("Object", "Relation")
        ]
        value = sum(sum(right) / len(right) for right in shares) / 2
        metrics = {"macro": Metric(value, value, value, 6)}
        return replace(run, items=items, primary="macro", metrics=metrics, macro_tags=("Object", "Relation"))

    page = compared(*map(macro, runs))
    section = page.sections["What changed"]

    # Object goes from 1/2 to 2/2, Relation stays at 1/4.
    assert section[section.index("macro") + 1 :][:3] == ["mean of 2 tags", "37.5 % →", "62.5 %"]
    assert any(text.startswith("macro") and "from 37.5 % to 62.5 %" in text for text in page.texts)


def test_number_of_pictures_and_open_tags_is_bounded(runs: tuple[Results, Results]) -> None:
    after = runs[1]
    many = tuple(
        replace(after.items[0], id=f"item-{k}", images=after.items[0].images * 3, tags=(f"tag {k}",))
        for k in range(50)
    )
    by_tag = {f"tag {k}": after.by_tag["Object"] for k in range(50)}

    page = Document(render_report(replace(after, items=many, by_tag=by_tag)))

    assert len(page.all("img")) == SHOWN * IMAGES
    assert "20 smaller tags" in page.texts
    assert "and 2 more images" in page.texts


def test_report_is_whole_or_the_old_one_stays(
    runs: tuple[Results, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "folder"
    file = write_report(folder, runs[1])
    old = file.read_text("utf-8")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(EvaluationError, match=r"report\.html cannot be written \(No space left on device\)"):
        write_report(folder, runs[0])

    assert file == folder / "report.html"
    assert file.read_text("utf-8") == old
    assert [found.name for found in folder.iterdir()] == ["report.html"]


def test_folder_that_is_a_file_is_refused(runs: tuple[Results, Results], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_report(tmp_path / "file", runs[1])


def test_comparison_without_its_baseline_is_refused(runs: tuple[Results, Results]) -> None:
    with pytest.raises(ValueError, match="give both or neither"):
        render_report(runs[1], compare(*runs))


def test_tables_have_headers_for_rows_and_columns(runs: tuple[Results, Results]) -> None:
    page = compared(*runs)

    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    assert len(page.all("table")) == 5
    assert page.all("html") == [{"lang": "en"}]
    labelled = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert [str(svg["aria-label"]).startswith("Histogram") for svg in labelled] == [True]
    assert all(svg.get("aria-hidden") == "true" for svg in page.all("svg") if svg not in labelled)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    values = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_can_be_told_from_what_is_behind_them(runs: tuple[Results, Results], scheme: int) -> None:
    colours = dict(re.findall(r"--(\w+): (#\w{6});", render_report(runs[1]).split(":root {")[1 + scheme]))

    for text in ("ink", "quiet", "right", "wrong"):
        assert contrast(colours[text], colours["page"]) >= 4.5
    assert contrast(colours["quiet"], colours["track"]) >= 4.5
    for bar in ("model", "baseline"):
        assert contrast(colours[bar], colours["track"]) >= 3

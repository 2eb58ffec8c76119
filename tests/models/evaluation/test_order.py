import json
from collections import Counter
from pathlib import Path

import pytest

from sds_clip.models.data.phrases import Words
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.order import cleaned, make_order_set, order_benchmark, shuffled_captions
from sds_clip.models.evaluation.retrieval import retrieval_benchmark
from tests.benchmark_sets import CAPTION, save_captions
from tests.models.evaluation.fixed_scorer import FixedScorer

NOUNS, ADJECTIVES = ["dog", "cat", "garden"], ["small", "red", "big", "old", "green"]


def draws(kind: int, count: int = 40) -> list[list[str]]:
    return [shuffled_captions(CAPTION, seed=0, place=place)[kind].split() for place in range(count)]


def test_captions_are_cleaned_as_the_published_code_does() -> None:
    assert cleaned('  Two  "dogs" (one brown), run!\n') == "two dogs one brown , run"
    assert cleaned("A man's T-shirt; he is here.") == "a man's t-shirt he is here"
    assert cleaned(" ".join(map(str, range(50)))).split() == list(map(str, range(30)))


def test_nouns_change_places_with_nouns_and_adjectives_with_adjectives() -> None:
    words = CAPTION.split()
    for shuffled in draws(0):
        assert shuffled != words
        for place, (before, after) in enumerate(zip(words, shuffled, strict=True)):
            kind = NOUNS if before in NOUNS else ADJECTIVES if before in ADJECTIVES else [words[place]]
            assert after in kind
        assert Counter(shuffled) == Counter(words)


def test_all_but_nouns_and_adjectives_change_places() -> None:
    words = CAPTION.split()
    for shuffled in draws(1):
        kept = [place for place, word in enumerate(words) if word in NOUNS + ADJECTIVES]
        assert [shuffled[place] for place in kept] == [words[place] for place in kept]
        assert shuffled != words
        assert Counter(shuffled) == Counter(words)


def test_words_change_places_within_three() -> None:
    words = CAPTION.split()
    for shuffled in draws(2):
        assert shuffled != words
        for start in range(0, len(words), 3):
            assert Counter(shuffled[start : start + 3]) == Counter(words[start : start + 3])


def test_threes_change_places_whole() -> None:
    words = CAPTION.split()
    threes = Counter(tuple(words[start : start + 3]) for start in range(0, len(words), 3))
    for shuffled in draws(3):
        assert shuffled != words
        # The last of the caption's is shorter, wherever it has come to stand.
        found, place = Counter[tuple[str, ...]](), 0
        while place < len(shuffled):
            unit = next(three for three in threes if tuple(shuffled[place : place + len(three)]) == three)
            found[unit] += 1
            place += len(unit)
        assert found == threes


def test_every_order_is_drawn() -> None:
    """Three nouns alone have six orders, of which one is the caption's."""
    found = {shuffled_captions("dog of cat in bird", seed=0, place=place)[0] for place in range(60)}
    assert len(found) == 5


def test_shuffles_are_a_function_of_seed_place_and_caption() -> None:
    assert shuffled_captions(CAPTION, seed=1, place=2) == shuffled_captions(CAPTION, seed=1, place=2)
    others = [shuffled_captions(CAPTION, seed=1, place=3), shuffled_captions(CAPTION, seed=2, place=2)]
    assert all(other != shuffled_captions(CAPTION, seed=1, place=2) for other in others)


def test_punctuation_stays_where_it_is() -> None:
    for shuffled in shuffled_captions("a red, big dog and a cat", seed=0, place=0):
        assert Words.of(shuffled).gaps == Words.of("a red, big dog and a cat").gaps


@pytest.mark.parametrize(("caption", "count"), [("dog", 0), ("dog dog", 0), ("a a a a", 0), ("", 0)])
def test_a_caption_of_one_order_has_no_shuffles(caption: str, count: int) -> None:
    assert len(shuffled_captions(caption, seed=0, place=0)) == count


def test_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION, "Dog."], [CAPTION]])
    benchmark = order_benchmark("coco-order", folder, None, tmp_path / "sets")
    assert [len(item.captions) for item in benchmark.items] == [5, 5]
    assert benchmark.settings["captions_without_other_order"] == 1
    scores = {"0": [[0.5], [0.1], [0.4], [0.2], [0.3]], "1": [[0.5], [0.1], [0.5], [0.2], [0.3]]}
    results = run_benchmark(benchmark, FixedScorer(scores))
    # Strictly above all four: the second has a tie, which the published argmax would let pass.
    assert results.metrics["acc"].value == 1 / 2
    assert results.metrics["acc"].ties == 1
    assert results.metrics["acc"].chance == 1 / 5
    assert results.primary == "acc"
    assert results.provenance["settings"]["order_set_hash"] == benchmark.settings["order_set_hash"]


def test_the_seed_of_the_orders_is_the_results_seed(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION]])
    (folder / "theirs.json").write_text(
        json.dumps([{"image": "val2014/0.jpg", "caption_options": ["a dog runs", "runs a dog"]}])
    )
    for path, seed in ((folder, 3), (folder / "theirs.json", None)):
        benchmark = order_benchmark("coco-order", path, None, tmp_path / "sets", seed=3)
        scores = {item.id: [[0.5]] + [[0.1]] * (len(item.captions) - 1) for item in benchmark.items}
        assert run_benchmark(benchmark, FixedScorer(scores)).provenance["seed"] == seed


@pytest.mark.parametrize("count", ['"abc"', "NaN", "1e400"])
def test_a_stored_set_with_a_count_that_is_none_is_refused(tmp_path: Path, count: str) -> None:
    folder = save_captions(tmp_path, [[CAPTION]])
    file = folder / "stored.json"
    items = json.dumps([{"image": "val2014/0.jpg", "caption_options": ["a dog runs", "runs a dog"]}])
    file.write_text(f'{{"without_other_order": {count}, "items": {items}}}')
    with pytest.raises(EvaluationError, match=r"stored\.json must be"):
        order_benchmark("coco-order", file, None, tmp_path / "sets")


def test_a_set_is_made_once_and_stored(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION], [CAPTION + " today"]])
    first = order_benchmark("coco-order", folder, None, tmp_path / "sets")
    (stored,) = (tmp_path / "sets").iterdir()
    before = stored.stat().st_mtime_ns
    again = order_benchmark("coco-order", folder, None, tmp_path / "sets")
    assert (again.items, again.settings) == (first.items, first.settings)
    assert stored.stat().st_mtime_ns == before
    other = order_benchmark("coco-order", folder, None, tmp_path / "sets", seed=1)
    assert other.settings["order_set_hash"] != first.settings["order_set_hash"]
    assert make_order_set(folder / "coco_karpathy_test.json").hash == first.settings["order_set_hash"]


def test_a_stored_set_is_data_too(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION]], "flickr30k_test.json")
    made = order_benchmark("flickr-order", folder, None, tmp_path / "sets")
    (stored,) = (tmp_path / "sets").iterdir()
    again = order_benchmark("flickr-order", stored, folder, tmp_path / "unused")
    assert again.items == made.items
    assert again.settings == made.settings
    assert not (tmp_path / "unused").exists()


def test_images_are_looked_for_where_retrieval_looks(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION], [CAPTION + " today"]])
    (folder / "images").mkdir()
    (folder / "val2014").rename(folder / "images/val2014")
    benchmark = order_benchmark("coco-order", folder, None, tmp_path / "sets")
    retrieval = retrieval_benchmark(folder / "coco_karpathy_test.json")
    paths = [item.images[0].path for item in benchmark.items]
    assert paths == [item.images[0].path for item in retrieval.items]
    assert all(path.is_file() for path in paths)
    with pytest.raises(EvaluationError, match="none"):
        order_benchmark("coco-order", folder, tmp_path / "none", tmp_path / "sets")


def test_images_named_from_beside_their_folder_are_found_too(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION]])
    (folder / "val2014").rename(folder / "images")
    options = ["a dog runs", "runs a dog"]
    (folder / "theirs.json").write_text(json.dumps([{"image": "images/0.jpg", "caption_options": options}]))
    benchmark = order_benchmark("coco-order", folder / "theirs.json", None, tmp_path / "sets")
    assert benchmark.items[0].images[0].path.is_file()


def test_the_other_benchmarks_file_is_refused(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION]], "flickr30k_test.json")
    with pytest.raises(EvaluationError, match="is the file of flickr-order; give coco_karpathy_test"):
        order_benchmark("coco-order", folder / "flickr30k_test.json", None, tmp_path / "sets")


def test_a_set_of_another_making_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(
        json.dumps([{"image": "a.jpg", "caption_options": ["a dog runs", "runs a dog"]}])
    )
    benchmark = order_benchmark("coco-order", tmp_path / "theirs.json", None, tmp_path / "sets")
    assert benchmark.items[0].captions == ("a dog runs", "runs a dog")
    assert benchmark.settings["order_set_seed"] is None


def test_a_changed_set_is_refused(tmp_path: Path) -> None:
    folder = save_captions(tmp_path, [[CAPTION]])
    order_benchmark("coco-order", folder, None, tmp_path / "sets")
    (stored,) = (tmp_path / "sets").iterdir()
    stored.write_text(stored.read_text().replace("garden", "gardens", 1))
    with pytest.raises(EvaluationError, match="hash"):
        order_benchmark("coco-order", folder, None, tmp_path / "sets")

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.image_check import Problems, look_at_images
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.sugarcrepe import sugarcrepe
from sds_clip.models.images.ref import ImageRef


def save_picture(file: Path, number: int, mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 40)).convert(mode).save(file)
    return file


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    """Six items over four files, one of them a copy of another under another name; one box."""
    files = [save_picture(tmp_path / f"{number}.png", number) for number in range(4)]
    (tmp_path / "copy.png").write_bytes(files[0].read_bytes())
    regions = [
        *map(ImageRef, files),
        ImageRef(tmp_path / "copy.png"),
        ImageRef(files[0], (3, 4, 20, 20)),
    ]
    return tuple(
        Item(id=str(number), images=(region,), captions=(f"a dog {number % 2}", "the cat"))
        for number, region in enumerate(regions)
    )


def prepared(scorer: ClipScorer, items: tuple[Item, ...]) -> ClipScorer:
    problems = Problems(len(items))
    scorer.prepare(items, look_at_images(items, problems), problems)
    problems.check()
    return scorer


def scores(scorer: ClipScorer, items: tuple[Item, ...]) -> Tensor:
    return torch.stack(list(prepared(scorer, items).scores(items)))


def test_scores_are_cosines_of_features_computed_alone(
    tiny_clip: Clip, items: tuple[Item, ...], tmp_path: Path
) -> None:
    with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=2) as scorer:
        found = scores(scorer, items)
    whole = encode_images(tiny_clip, [Image.open(item.images[0].path) for item in items[:5]])
    texts = [encode_texts(tiny_clip, item.captions) for item in items]
    for row in range(5):
        torch.testing.assert_close(found[row, :, 0], texts[row] @ whole[row], atol=1e-6, rtol=0)
    crop = Image.open(items[5].images[0].path).convert("RGB").crop((3, 4, 23, 24))
    torch.testing.assert_close(
        found[5, :, 0], texts[5] @ encode_images(tiny_clip, [crop])[0], atol=1e-6, rtol=0
    )


def test_each_image_and_text_is_encoded_once_by_content(
    tiny_clip: Clip, items: tuple[Item, ...], tmp_path: Path
) -> None:
    seen: list[int] = []
    tiny_clip.network.visual.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=2) as scorer:
        prepared(scorer, items)
        assert scorer.encoded == {"images": 5, "texts": 3}
        found = scores(scorer, items)
    assert sum(seen) == 5
    assert torch.equal(found[0], found[4])


def test_equal_pixels_of_other_files_get_equal_features(tiny_clip: Clip, tmp_path: Path) -> None:
    one = save_picture(tmp_path / "a.png", 0)
    Image.open(one).save(tmp_path / "b.webp", lossless=True)
    pair = tuple(
        Item(id=file.name, images=(ImageRef(file),), captions=("a dog",))
        for file in (one, tmp_path / "b.webp")
    )
    for size in (1, 2):
        with ClipScorer(tiny_clip, tmp_path / f"kept{size}", batch_size=size) as scorer:
            first, second = scores(scorer, pair)
            assert torch.equal(first, second)
            assert scorer.encoded["images"] == 1


def test_what_is_kept_is_not_encoded_again(tiny_clip: Clip, items: tuple[Item, ...], tmp_path: Path) -> None:
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        first = scores(scorer, items)
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        assert torch.equal(scores(scorer, items), first)
        assert scorer.encoded == {"images": 0, "texts": 0}


def test_another_version_or_precision_shares_nothing(
    tiny_folder: Path, tiny_clip: Clip, items: tuple[Item, ...], tmp_path: Path
) -> None:
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        prepared(scorer, items)
    halved = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="bfloat16")
    for other in (replace(tiny_clip, version="0" * 64), halved):
        with ClipScorer(other, tmp_path / "kept") as scorer:
            prepared(scorer, items)
            assert scorer.encoded == {"images": 5, "texts": 3}


def test_another_batch_size_or_number_of_threads_shares_no_image(
    tiny_clip: Clip, items: tuple[Item, ...], tmp_path: Path
) -> None:
    with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=2) as scorer:
        prepared(scorer, items)
        assert (scorer.describe()["batch_size"], scorer.describe()["threads"]) == (2, torch.get_num_threads())
    with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=3) as scorer:
        prepared(scorer, items)
        assert scorer.encoded == {"images": 5, "texts": 0}  # texts have batches of their own
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=2) as scorer:
            prepared(scorer, items)
            assert scorer.encoded == {"images": 5, "texts": 3}
            assert scorer.describe()["threads"] == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_changed_file_is_encoded_again(tiny_clip: Clip, items: tuple[Item, ...], tmp_path: Path) -> None:
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        before = scores(scorer, items)
    save_picture(items[1].images[0].path, 99)
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        after = scores(scorer, items)
        assert scorer.encoded["images"] == 1
    assert not torch.equal(before[1], after[1])
    assert torch.equal(before[2], after[2])


def test_only_batches_are_decoded_at_a_time(tiny_clip: Clip, tmp_path: Path) -> None:
    """Not more than two batches ahead of what has been encoded, however many images there are."""
    many = tuple(
        Item(id=str(n), images=(ImageRef(save_picture(tmp_path / f"{n}.png", n)),), captions=("a",))
        for n in range(40)
    )
    decoded = encoded = most = 0

    def preprocess(image: Image.Image) -> Tensor:
        nonlocal decoded, most
        decoded += 1
        most = max(most, decoded - encoded)
        return tiny_clip.preprocess(image)

    def count(_: object, given: tuple[Tensor]) -> None:
        nonlocal encoded
        encoded += len(given[0])

    tiny_clip.network.visual.register_forward_pre_hook(count)
    with ClipScorer(replace(tiny_clip, preprocess=preprocess), tmp_path / "kept", batch_size=4) as scorer:
        prepared(scorer, many)
    assert decoded == 40
    assert most <= 8


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_other_modes_are_converted_as_pil_does(tiny_clip: Clip, tmp_path: Path, mode: str) -> None:
    file = save_picture(tmp_path / "a.png", 1, mode)
    item = (Item(id="0", images=(ImageRef(file),), captions=("a dog",)),)
    expected = tiny_clip.encode_image(tiny_clip.preprocess(Image.open(file).convert("RGB"))[None])[0]
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        prepared(scorer, item)
        torch.testing.assert_close(scorer.image_features(item[0].images)[0], expected, atol=1e-6, rtol=0)


def test_an_image_that_cannot_be_decoded_leaves_its_item_out(tiny_clip: Clip, tmp_path: Path) -> None:
    good, bad = save_picture(tmp_path / "good.png", 0), save_picture(tmp_path / "bad.jpg", 1)
    # Whole by its container, and damaged in what it holds.
    data = bytearray(bad.read_bytes())
    start = data.index(b"\xff\xc4")
    data[start + 4 : start + 12] = b"\xff" * 8
    bad.write_bytes(bytes(data))
    items = tuple(
        Item(id=file.name, images=(ImageRef(file),), captions=("a dog", "a cat")) for file in (good, bad)
    )
    benchmark = CaptionChoice("sugarcrepe", items, {})
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        with pytest.raises(EvaluationError, match=r"1 of 2 items cannot be used:\n  item bad\.jpg"):
            run_benchmark(benchmark, scorer)
        assert run_benchmark(benchmark, scorer, max_bad_share=0.5).metrics["acc"].n == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.sugarcrepe import sugarcrepe

clip = load_clip(sys.argv[1], device="cpu", precision="float32")
batches = []
def count(*_):
    batches.append(1)
    if len(batches) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
clip.network.visual.register_forward_pre_hook(count)
with ClipScorer(clip, Path(sys.argv[3]), batch_size=4) as scorer:
    run_benchmark(sugarcrepe(Path(sys.argv[2])), scorer)
"""


@pytest.fixture
def sugar(tmp_path: Path) -> Path:
    folder = tmp_path / "sugar"
    (folder / "val2017").mkdir(parents=True)
    content = {}
    for number in range(20):
        save_picture(folder / f"val2017/{number}.png", number)
        texts = {"caption": f"a dog {number}", "negative_caption": f"a cat {number}"}
        content[str(number)] = {"filename": f"{number}.png"} | texts
    (folder / "swap_obj.json").write_text(json.dumps(content))
    return folder


def test_a_killed_run_goes_on_where_it_was(
    tiny_folder: Path, tiny_clip: Clip, sugar: Path, tmp_path: Path
) -> None:
    options = [f"local-dir:{tiny_folder}", str(sugar), str(tmp_path / "kept")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # scores are kept by it
    killed = subprocess.run([sys.executable, "-c", KILLED, *options], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL

    with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=4) as scorer:
        results = run_benchmark(sugarcrepe(sugar), scorer)
        assert scorer.encoded["images"] == 8  # three batches of four were kept
    with ClipScorer(tiny_clip, tmp_path / "fresh", batch_size=4) as scorer:
        assert run_benchmark(sugarcrepe(sugar), scorer) == results

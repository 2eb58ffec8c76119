"""Order as a function of seed and step, and loading ahead of time."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.data.batches import Loader, batch_indices, caption_choice, order, steps_per_epoch
from sds_clip.models.data.pairs import FilePairs, Sample
from sds_clip.models.errors import DataError
from tests.pictures import save_pictures

SAMPLE = Sample("x", ("a", "b", "c"), ((), (), ()))


def to_pixels(image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32))


@pytest.fixture
def pairs(tmp_path: Path) -> FilePairs:
    """Ten images; image k is grey k and has the captions k and -k, with negatives."""
    names = [f"{number}.png" for number in range(10)]
    save_pictures(tmp_path, names)
    samples = [
        Sample(name, (f"{number}", f"-{number}"), ((f"not {number}",), (f"not -{number}",)))
        for number, name in enumerate(names)
    ]
    return FilePairs(samples, tmp_path)


def loader(
    pairs: FilePairs,
    *,
    preprocess: Callable[[PIL.Image.Image], Float[Tensor, "3 h w"]] = to_pixels,
    last_step: int = 7,
    first_step: int = 0,
    **options: object,
) -> Loader:
    return Loader(
        pairs,
        preprocess,
        batch_size=4,
        seed=3,
        first_step=first_step,
        last_step=last_step,
        **options,  # type: ignore[arg-type]
    )


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "assemble"))]


def test_order_is_a_permutation_that_seed_and_epoch_change() -> None:
    assert sorted(order(1000, 1, 2)) == list(range(1000))
    assert order(1000, 1, 2).tolist() == order(1000, 1, 2).tolist()
    orders = {tuple(order(50, seed, epoch)) for seed in (-1, 0, 1, 2**40) for epoch in range(5)}
    assert len(orders) == 20


def test_order_is_that_of_philox_numbers() -> None:
    generator = np.random.Philox(key=np.array([5, 2], dtype=np.uint64))
    assert order(20, 5, 2).tolist() == np.argsort(generator.random_raw(20)).tolist()


def test_every_place_is_equally_likely() -> None:
    firsts = Counter(int(order(5, seed, 0)[0]) for seed in range(2000))
    assert all(320 < firsts[place] < 480 for place in range(5))


def test_epochs_follow_each_other_without_their_rest() -> None:
    steps = [batch_indices(10, 4, 3, step).tolist() for step in range(4)]
    assert steps == [part.tolist() for epoch in (0, 1) for part in np.split(order(10, 3, epoch)[:8], 2)]
    assert steps_per_epoch(10, 4) == 2


@pytest.mark.parametrize("batch_size", [11, 0])
def test_batch_that_the_data_cannot_fill_is_refused(pairs: FilePairs, batch_size: int) -> None:
    with pytest.raises(DataError, match=f"{batch_size}.*10"):
        batch_indices(10, batch_size, 0, 0)
    with pytest.raises(DataError, match=f"{batch_size}.*10"):
        Loader(pairs, to_pixels, batch_size=batch_size, seed=0, first_step=0, last_step=1)


def test_captions_change_with_the_epoch_and_are_equally_likely() -> None:
    chosen = Counter(caption_choice(SAMPLE, 0, epoch, index) for epoch in range(30) for index in range(100))
    assert all(880 < chosen[place] < 1120 for place in range(3))
    assert caption_choice(SAMPLE, 0, 1, 2) == caption_choice(SAMPLE, 0, 1, 2)


def test_batches_come_in_order_with_everything_of_a_sample_together(pairs: FilePairs) -> None:
    with closing(loader(pairs)) as batches:
        found = list(batches)
    assert [batch.step for batch in found] == list(range(7))
    for batch in found:
        indices = batch_indices(10, 4, 3, batch.step).tolist()
        choices = [caption_choice(pairs.sample(index), 3, batch.step // 2, index) for index in indices]
        assert batch.indices.tolist() == indices
        assert batch.pixels[:, 0, 0, 0].tolist() == indices
        assert batch.captions == [pairs.sample(i).captions[c] for i, c in zip(indices, choices, strict=True)]
        assert batch.negatives == [(f"not {caption}",) for caption in batch.captions]


def test_loading_from_a_later_step_gives_the_same_batches(pairs: FilePairs) -> None:
    whole = list(loader(pairs))[5:]
    resumed = list(loader(pairs, first_step=5, workers=1, depth=0, cache_bytes=0))
    for one, other in zip(whole, resumed, strict=True):
        assert (one.step, one.captions) == (other.step, other.captions)
        assert torch.equal(one.pixels, other.pixels)


def test_ranks_share_a_batch_in_equal_parts(pairs: FilePairs) -> None:
    whole = next(iter(loader(pairs)))
    parts = [next(iter(loader(pairs, rank=rank, world_size=2))) for rank in range(2)]
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
    assert parts[0].captions + parts[1].captions == whole.captions
    with pytest.raises(DataError, match="multiple of 3"):
        loader(pairs, world_size=3)


def test_image_whose_pixels_are_not_needed_is_not_decoded(pairs: FilePairs) -> None:
    decoded: list[int] = []

    def preprocess(image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
        decoded.append(image.getpixel((0, 0))[0])
        return to_pixels(image)

    (batch,) = loader(pairs, preprocess=preprocess, last_step=1, known=lambda index: index % 2 == 0)

    odd = [(place, index) for place, index in enumerate(batch.indices.tolist()) if index % 2]
    assert 0 < len(odd) < 4
    assert list(zip(batch.decoded, batch.pixels[:, 0, 0, 0].tolist(), strict=True)) == odd
    assert sorted(decoded) == sorted(index for _, index in odd)


def test_batch_whose_pixels_are_not_needed_has_its_captions(pairs: FilePairs) -> None:
    whole = next(iter(loader(pairs)))

    (batch,) = loader(pairs, last_step=1, known=lambda index: True)

    assert (batch.decoded, len(batch.pixels)) == ([], 0)
    assert torch.equal(batch.indices, whole.indices)
    assert batch.captions == whole.captions


def test_sample_that_vanishes_is_named_where_its_batch_is_asked_for(pairs: FilePairs) -> None:
    victim = int(batch_indices(10, 4, 3, 1)[2])
    pairs.ref(victim).path.unlink()
    batches = iter(loader(pairs))
    assert next(batches).step == 0
    with pytest.raises(DataError, match=rf"{victim}\.png"):
        list(batches)
    assert decoding_threads() == []


def test_failing_preprocessing_names_the_sample(pairs: FilePairs) -> None:
    def fail(image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
        raise ZeroDivisionError("of the transform")

    with pytest.raises(DataError, match=r"\d\.png: .*of the transform"):
        next(iter(Loader(pairs, fail, batch_size=4, seed=0, first_step=0, last_step=1)))


def test_no_more_than_depth_batches_are_decoded_ahead_in_other_threads(pairs: FilePairs) -> None:
    decoded: list[str] = []

    def note(image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
        decoded.append(threading.current_thread().name)
        return to_pixels(image)

    with closing(loader(pairs, preprocess=note, depth=2, cache_bytes=0)) as source:
        batches = iter(source)
        for step in range(3):
            assert next(batches).step == step
            assert 4 * (step + 1) <= len(decoded) <= 4 * (step + 3)
    assert all(name.startswith("decode") for name in decoded)


def test_close_leaves_no_thread(pairs: FilePairs) -> None:
    with closing(loader(pairs, last_step=1000)) as batches:
        iterator = iter(batches)
        next(iterator)
        assert decoding_threads()
    assert decoding_threads() == []


def test_waiting_for_data_is_counted(pairs: FilePairs) -> None:
    def slow(image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
        time.sleep(0.05)  # the wait that is counted
        return to_pixels(image)

    batches = loader(pairs, preprocess=slow, last_step=2)
    list(batches)
    assert batches.wait_s >= 0.05


def test_cached_images_are_decoded_once_within_the_limit(pairs: FilePairs) -> None:
    decoded: Counter[int] = Counter()

    def count(image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
        pixels = to_pixels(image)
        decoded[int(pixels[0, 0, 0])] += 1
        return pixels

    size = 3 * 6 * 8 * 4
    for limit in (10 * size, 6 * size, 0):
        decoded.clear()
        list(
            Loader(
                pairs,
                count,
                batch_size=10,
                seed=0,
                first_step=0,
                last_step=3,
                workers=1,
                depth=0,
                cache_bytes=limit,
            )
        )
        kept = limit // size
        assert sorted(decoded.values()) == [1] * kept + [3] * (10 - kept)

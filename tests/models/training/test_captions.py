"""Runs with teachers of several text encoders: each objective, and captions that are encoded before the first step."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training import run
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from sds_clip.models.training.watcher import ENCODING, Watcher
from tests.teachers import save_flux_teacher, save_sd3_teacher, save_sdxl_teacher
from tests.training import PLACE, changed, configure

SAVERS = {"sdxl": save_sdxl_teacher, "sd3": save_sd3_teacher, "flux": save_flux_teacher}
OBJECTIVES: dict[str, dict[str, object]] = {
    "sds-clip": {},
    "condition": {},
    "noise-contrast": {},
    "score": {"negatives": "swap", "score_draws": 2, "sds_batch_size": 2},
}
Load = Callable[..., Teacher]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    return {name: save(place / name) for name, save in SAVERS.items()}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small text encoders count as large ones."""
    monkeypatch.setattr(run, "LARGE_BYTES", 0)


def load(folder: Path, cache: Path | None = None, max_cache_bytes: int | None = None) -> Teacher:
    return load_teacher(
        str(folder),
        device="cpu",
        precision="float32",
        vae=True,
        caption_cache=cache,
        max_cache_bytes=max_cache_bytes,
    )


def delta_bytes(out: Path) -> bytes:
    return (out / "delta" / "delta.safetensors").read_bytes()


class Told(Watcher):
    """Keeps what a run says of its stages, and whether the text encoders are there at a step."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.stages: list[tuple[str, int, int]] = []
        self.present: list[bool] = []

    def on_batch(self, stage: str, done: int, total: int) -> None:
        self.stages.append((stage, done, total))

    def on_step(self, done: int, steps: int) -> None:
        self.present.append(bool(self.teacher.text_encoders))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", SAVERS)
def test_every_family_teaches_by_every_objective(
    family: str, objective: str, folders: dict[str, Path], base: Clip, pairs: PairSet, tmp_path: Path
) -> None:
    config = configure(objective=objective, steps=2, **OBJECTIVES[objective])
    result = train(config, Parts(base, pairs, load(folders[family])), tmp_path, PLACE)
    assert result.delta == tmp_path / "delta"
    assert any(bool(value.any()) for value in changed(tmp_path).values())


@pytest.mark.parametrize("objective", ["sds-clip", "score"])
def test_large_text_encoders_see_the_captions_before_the_first_step_and_go(
    objective: str, folders: dict[str, Path], base: Clip, pairs: PairSet, tmp_path: Path, large: None
) -> None:
    config = configure(objective=objective, steps=3, guidance=2.0, **OBJECTIVES[objective])
    teacher = load(folders["sd3"], tmp_path / "cache")
    gone = [weakref.ref(encoder) for encoder in teacher.text_encoders.values()]
    teacher.load_text_encoders = None  # so that a caption that was not foreseen fails the run
    told = Told(teacher)
    train(config, Parts(base, pairs, teacher), tmp_path / "ahead", PLACE, watcher=told)
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    assert told.present == [False] * 3
    stages = [(done, total) for stage, done, total in told.stages if stage == ENCODING]
    assert stages[-1][0] == stages[-1][1] > 8
    assert stages[0] == (8, stages[-1][1])

    without = Parts(base, pairs, load(folders["sd3"]))
    plain = Told(without.teacher or teacher)
    train(config, without, tmp_path / "plain", PLACE, watcher=plain)
    assert plain.present == [True] * 3  # they stay without a cache on disk
    assert delta_bytes(tmp_path / "ahead") == delta_bytes(tmp_path / "plain")


def test_text_encoders_stay_if_the_cache_cannot_hold_what_they_make(
    folders: dict[str, Path], base: Clip, pairs: PairSet, tmp_path: Path, large: None
) -> None:
    parts = Parts(base, pairs, load(folders["sd3"], tmp_path / "cache", max_cache_bytes=300_000))
    assert parts.teacher is not None
    told = Told(parts.teacher)
    train(configure(steps=2), parts, tmp_path / "run", PLACE, watcher=told)
    assert told.present == [True] * 2
    assert not told.stages


def test_small_text_encoders_stay(
    folders: dict[str, Path], base: Clip, pairs: PairSet, tmp_path: Path
) -> None:
    teacher = load(folders["sdxl"], tmp_path / "cache")
    told = Told(teacher)
    train(configure(steps=1), Parts(base, pairs, teacher), tmp_path / "run", PLACE, watcher=told)
    assert told.present == [True]
    assert ENCODING not in [stage for stage, *_ in told.stages]


def test_text_encoders_go_at_once_if_no_caption_is_needed(
    folders: dict[str, Path], base: Clip, pairs: PairSet, tmp_path: Path, large: None
) -> None:
    teacher = load(folders["flux"])
    told = Told(teacher)
    config = configure(objective="condition", steps=1)
    train(config, Parts(base, pairs, teacher), tmp_path, PLACE, watcher=told)
    assert told.present == [False]
    assert not told.stages


def test_a_stop_while_captions_are_encoded_is_resumed_to_the_same_weights(
    folders: dict[str, Path], base: Clip, pairs: PairSet, tmp_path: Path, large: None
) -> None:
    class Ending(Watcher):
        def on_batch(self, stage: str, done: int, total: int) -> None:
            raise InterruptedError(stage)

    config, cache = configure(steps=3), tmp_path / "cache"
    parts = Parts(base, pairs, load(folders["flux"], cache))
    with pytest.raises(InterruptedError, match=ENCODING):
        train(config, parts, tmp_path / "twice", PLACE, watcher=Ending())
    train(
        config, replace(parts, teacher=load(folders["flux"], cache)), tmp_path / "twice", PLACE, resume=True
    )
    train(config, Parts(base, pairs, load(folders["flux"])), tmp_path / "once", PLACE)
    assert delta_bytes(tmp_path / "twice") == delta_bytes(tmp_path / "once")


def test_a_caption_that_is_in_no_cache_loads_the_text_encoders_again(folders: dict[str, Path]) -> None:
    teacher: Any = load(folders["sdxl"])
    expected = teacher.encode_captions(["a red cube"])
    teacher.unload_text_encoders()
    assert not teacher.text_encoders
    assert teacher.encode_captions(["a red cube"]).equal(expected)
    assert list(teacher.text_encoders) == ["text_encoder", "text_encoder_2"]

"""A run from its first step to its delta: stopped, broken off, resumed, refused."""

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.precision import choose_precision
from sds_clip.models.clip.student import StudentError
from sds_clip.models.data import batches
from sds_clip.models.data.batches import order
from sds_clip.models.data.pairs import Subset
from sds_clip.models.errors import CheckpointError, ConfigError, DataError, TrainingError
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.training.config import parse_config
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.processes import Rank
from sds_clip.models.training.run import train
from sds_clip.models.training.validation import validate
from sds_clip.models.training.watcher import Record, Watcher
from tests.training import EVERY_TERM, PLACE, TwoCaptions, captions, configure, last_checkpoint


def at_call(number: int, act: Callable[[], object] = lambda: None, *, stop: bool = False) -> Watcher:
    """Acts, and stops if told so, after the number-th step that it sees."""

    class AtCall(Watcher):
        seen = 0

        def on_step(self, done: int, steps: int) -> None:
            self.seen += 1
            if self.seen == number:
                act()

        def should_stop(self) -> bool:
            return stop and self.seen == number

    return AtCall()


def delta_bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((out / "delta").iterdir())}


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


RUNS: list[dict[str, object]] = [
    {},
    {"gradient": "sds", "sds_batch_size": 3, "trainable": "all", "mapper_start": "ridge"},
    {"objective": "score", "negatives": "swap", "score_draws": 2, "precision": "bfloat16"},
    {"objective": "condition", "conflicts": "project", "mapper_warmup_steps": 1, "sds_batch_size": 6},
    {"objective": "noise-contrast", "sds_batch_size": 4},
    {"objective": "clip", "negatives": "swap", "negatives_loss": "contrast", "micro_batch_size": 3},
    {"objective": "clip", "negatives": "swap", "trainable": "text-map", "micro_batch_size": 3},
    {
        "trainable": "lora",
        "lora_targets": "both",
        "lora_alpha": 8,
        "weight_decay": 0.1,
        "micro_batch_size": 3,
    },
    {"objective": "noise-contrast", "lambda": "auto", "warmup_steps": 3, **EVERY_TERM},
    {"objective": "clip", "trainable": "text-map", **EVERY_TERM},
    {"trainable": "lora", "lambda": "auto", "warmup_steps": 3, "micro_batch_size": 3, **EVERY_TERM},
]


def parts_for(options: dict[str, object], parts: Parts) -> Parts:
    return replace(parts, pairs=TwoCaptions(parts.pairs)) if "paraphrase_weight" in options else parts


@pytest.mark.parametrize("options", RUNS)
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes(
    options: dict[str, object], parts: Parts, tmp_path: Path
) -> None:
    config, parts = configure(steps=5, **options), parts_for(options, parts)
    train(config, parts, tmp_path / "straight", PLACE)
    stopped = train(config, parts, tmp_path / "twice", PLACE, watcher=at_call(2, stop=True))
    assert (stopped.delta, stopped.steps_done) == (None, 2)
    assert not (tmp_path / "twice" / "delta").exists()
    resumed = train(config, parts, tmp_path / "twice", PLACE, resume=True)
    assert resumed.delta == tmp_path / "twice" / "delta"
    assert delta_bytes(tmp_path / "twice") == delta_bytes(tmp_path / "straight")


@pytest.mark.parametrize("options", RUNS)
def test_a_siglip_is_trained_by_every_objective(
    options: dict[str, object], parts: Parts, sigmoid_base: Clip, tmp_path: Path
) -> None:
    own = replace(parts_for(options, parts), base=sigmoid_base)
    trained = train(configure(steps=3, **options), own, tmp_path, PLACE)
    tuned = load_clip(f"local-dir:{trained.delta}", device="cpu", precision="float32")
    assert (tuned.logit_bias != sigmoid_base.logit_bias) is (options.get("trainable") == "all")
    before, after = (clip.encode_text(clip.tokenizer(captions(4))) for clip in (sigmoid_base, tuned))
    assert not torch.equal(before, after)
    losses = [each["loss"] for each in records(tmp_path) if "loss" in each]
    assert losses
    assert np.isfinite(losses).all()


def test_text_map_decodes_no_image_again_once_its_embedding_is_known(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches._PixelCache, "put", lambda *_: None)
    opened = []

    class Counted(Subset):
        def image(self, index: int) -> PIL.Image.Image:
            opened.append(index)
            return super().image(index)

    pairs = Counted(parts.pairs, range(len(parts.pairs)))
    counts = []
    for steps in (6, 12):  # two epochs, and four
        opened.clear()
        config = configure(steps=steps, objective="clip", negatives="swap", trainable="text-map")
        train(config, replace(parts, pairs=pairs), tmp_path / str(steps), PLACE)
        counts.append(len(opened))

    assert counts[0] == counts[1] < 2 * len(pairs)


def test_checkpoints_within_the_least_interval_are_left_out_and_change_no_weight(
    parts: Parts, tmp_path: Path
) -> None:
    config = configure(save_every=1, keep_checkpoints=9)
    train(config, parts, tmp_path / "often", PLACE)
    rare = tmp_path / "rare"
    stopped = train(config, parts, rare, PLACE, min_save_interval_s=3600.0, watcher=at_call(3, stop=True))
    assert stopped.delta is None
    assert [kept.name for kept in (rare / "checkpoints").iterdir()] == ["step-00000003"]
    train(config, parts, rare, PLACE, min_save_interval_s=3600.0, resume=True)
    assert sorted(kept.name for kept in (rare / "checkpoints").iterdir()) == [
        "step-00000003",
        "step-00000004",
    ]
    assert len(list((tmp_path / "often" / "checkpoints").iterdir())) == 4
    assert delta_bytes(rare) == delta_bytes(tmp_path / "often")


def test_a_broken_newest_checkpoint_gives_way_to_the_one_before(parts: Parts, tmp_path: Path) -> None:
    config = configure(save_every=2)
    train(config, parts, tmp_path / "straight", PLACE)
    train(config, parts, tmp_path / "out", PLACE, watcher=at_call(3, stop=True))
    newest = tmp_path / "out" / "checkpoints" / "step-00000003" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(config, parts, tmp_path / "out", PLACE, resume=True)
    assert delta_bytes(tmp_path / "out") == delta_bytes(tmp_path / "straight")


def test_a_run_killed_after_its_last_checkpoint_still_writes_its_delta(parts: Parts, tmp_path: Path) -> None:
    watched = replace(parts, validation=Subset(parts.pairs, range(4)))
    train(configure(), watched, tmp_path, PLACE)
    written = delta_bytes(tmp_path)
    (tmp_path / "delta").rename(tmp_path / ".delta.0123abcd")  # as it is called until it is whole
    train(configure(), watched, tmp_path, PLACE, resume=True)
    assert delta_bytes(tmp_path) == written
    assert not list(tmp_path.glob(".delta.*"))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    parts: Parts, teacher_folder: Path, tmp_path: Path
) -> None:
    teacher = load_teacher(str(teacher_folder), device="cpu", precision="float32", vae=True)
    failing = replace(parts, teacher=teacher)
    config = configure(save_every=2)
    poison = at_call(3, lambda: teacher.denoiser.conv_out.bias.fill_(float("nan")))
    with pytest.raises(TrainingError, match=r"Step 4: sds, residual.* is not finite"):
        train(config, failing, tmp_path / "out", PLACE, watcher=poison)
    assert [kept.name for kept in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000002"]
    assert records(tmp_path / "out") == [
        {"step": 4, "steps": 4, "non_finite": 8}
    ]  # losses, residuals and norms
    train(config, parts, tmp_path / "out", PLACE, resume=True)
    assert [record["step"] for record in records(tmp_path / "out")] == [4]
    train(config, parts, tmp_path / "straight", PLACE)
    assert delta_bytes(tmp_path / "out") == delta_bytes(tmp_path / "straight")


def test_a_full_disk_leaves_the_checkpoints_before_it_whole(parts: Parts, tmp_path: Path) -> None:
    config = configure(save_every=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = at_call(4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1])))
    try:
        with pytest.raises(CheckpointError, match=r"step-00000004 cannot be written"):
            train(config, parts, tmp_path / "out", PLACE, watcher=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [kept.name for kept in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000002"]
    assert train(config, parts, tmp_path / "out", PLACE, resume=True).steps_done == 4


def test_a_run_that_was_stopped_needs_resume_and_the_options_it_had(parts: Parts, tmp_path: Path) -> None:
    train(configure(), parts, tmp_path, PLACE, watcher=at_call(1, stop=True))
    with pytest.raises(TrainingError, match="--resume"):
        train(configure(), parts, tmp_path, PLACE)
    with pytest.raises(TrainingError, match=r"lr 0\.001 -> 0\.01; sds_weight 1\.0 -> 2\.0"):
        train(configure(lr=0.01, sds_weight=2.0), parts, tmp_path, PLACE, resume=True)
    fewer = replace(parts, pairs=Subset(parts.pairs, range(20)))
    with pytest.raises(TrainingError, match=r"data_hash .* data_size 24 -> 20"):
        train(configure(), fewer, tmp_path, PLACE, resume=True)
    other = replace(parts, base=replace(parts.base, version="another"))
    with pytest.raises(TrainingError, match=r"base_version .* -> 'another'"):
        train(configure(), other, tmp_path, PLACE, resume=True)
    assert parts.teacher is not None
    replaced = replace(parts, teacher=replace(parts.teacher, vae_version="another"))
    with pytest.raises(TrainingError, match=r"vae_version .* -> 'another'"):
        train(configure(), replaced, tmp_path, PLACE, resume=True)


def test_options_that_decide_no_weights_may_change_at_a_resume(parts: Parts, tmp_path: Path) -> None:
    train(configure(), parts, tmp_path / "straight", PLACE)
    train(configure(), parts, tmp_path / "out", PLACE, watcher=at_call(1, stop=True))
    moved = configure(
        save_every=1, log_every=1, workers=2, keep_checkpoints=1, data="elsewhere", val_images="there"
    )
    train(moved, parts, tmp_path / "out", PLACE, resume=True)
    tensors = [delta_bytes(tmp_path / name)["delta.safetensors"] for name in ("out", "straight")]
    assert tensors[0] == tensors[1]


def test_a_finished_run_is_not_overwritten(parts: Parts, tmp_path: Path) -> None:
    train(configure(steps=1), parts, tmp_path, PLACE)
    for resume in (False, True):
        with pytest.raises(TrainingError, match="finished run; use another --out"):
            train(configure(steps=1), parts, tmp_path, PLACE, resume=resume)


def test_resume_where_nothing_was_starts_a_run(parts: Parts, tmp_path: Path) -> None:
    train(configure(), parts, tmp_path / "straight", PLACE)
    train(configure(), parts, tmp_path / "out", PLACE, resume=True)
    assert delta_bytes(tmp_path / "out") == delta_bytes(tmp_path / "straight")


def test_a_folder_that_cannot_be_written_is_named(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"file/out cannot be written"):
        train(configure(), parts, tmp_path / "file" / "out", PLACE)


def test_what_does_not_fit_is_refused_before_anything_is_written(parts: Parts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"32.*24"):
        train(configure(batch_size=32), parts, out, PLACE)
    with pytest.raises(ConfigError, match="sds_batch_size 3 cannot be split evenly over 2 processes"):
        train(configure(sds_batch_size=3), parts, out, Rank(torch.device("cpu"), 0, 2))
    contrast = configure(objective="noise-contrast", sds_batch_size=4)
    with pytest.raises(ConfigError, match="sds_batch_size 4 cannot be split over 2 processes in groups of 4"):
        train(contrast, parts, out, Rank(torch.device("cpu"), 0, 2))
    with pytest.raises(StudentError, match="no BatchNorm"):
        train(configure(trainable="batchnorm"), parts, out, PLACE)
    assert not out.exists()


def test_epochs_are_whole_batches_of_the_data(parts: Parts, tmp_path: Path) -> None:
    config = configure(steps=None, epochs=1.5, batch_size=10, objective="clip")
    assert train(config, parts, tmp_path, PLACE).steps_done == 3  # 1.5 times 2 of 24 // 10


def test_the_log_holds_what_a_run_is_judged_by(parts: Parts, tmp_path: Path) -> None:
    shown: list[Any] = []
    watched = replace(parts, validation=Subset(parts.pairs, range(6)))
    config = configure(steps=5, log_every=2, negatives="swap")
    steps: list[tuple[int, int]] = []

    class Shown(Watcher):
        def on_record(self, record: Record) -> None:
            shown.append(record)

        def on_step(self, done: int, of: int) -> None:
            steps.append((done, of))

    result = train(config, watched, tmp_path, PLACE, watcher=Shown())
    assert steps == [(done, 5) for done in range(1, 6)]
    logged = records(tmp_path)
    assert [record["step"] for record in logged] == [record["step"] for record in shown] == [2, 4, 5, 5]
    assert logged[0].keys() == {
        *("step", "steps", "clip", "negatives", "sds", "residual", "residual_shuffled", "loss"),
        *("gradient_norm", "mapper_gradient_norm", "lr", "examples_per_s", "data_share"),
        *("peak_memory_mib", "non_finite", "mapped_rms", "mapped_spread"),
        "teacher_gradient_share",
        "teacher_gradient_cosine",
    }
    first = logged[0]
    assert first["loss"] == pytest.approx(first["clip"] + first["negatives"] + first["sds"], rel=1e-5)
    assert first["sds"] == pytest.approx(first["residual"], rel=1e-5)
    assert first["residual_shuffled"] != first["residual"]
    assert logged[-1].keys() == {"step", *result.metrics}


def test_one_sample_for_the_teacher_has_no_shuffled_caption(parts: Parts, tmp_path: Path) -> None:
    """Its own would be logged as another's: a gap of zero that says nothing."""
    train(configure(steps=1, sds_batch_size=1), parts, tmp_path, PLACE)
    assert "residual" in records(tmp_path)[0]
    assert "residual_shuffled" not in records(tmp_path)[0]


def test_validation_is_of_the_base_and_of_the_tuned_network(parts: Parts, tmp_path: Path) -> None:
    held_out = Subset(parts.pairs, range(6))
    watched = replace(parts, validation=held_out)
    config = configure(trainable="all", objective="clip", lr=0.01)
    result = train(config, watched, tmp_path, PLACE)
    tuned = load_clip(f"local-dir:{tmp_path / 'delta'}", device="cpu", precision="float32")
    expected = {f"base_{name}": value for name, value in validate(parts.base, held_out, 8).items()}
    assert result.metrics == pytest.approx(expected | validate(tuned, held_out, 8))
    assert result.metrics["validation_clip"] != result.metrics["base_validation_clip"]


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_run_that_is_ended_between_its_steps_goes_on_to_the_same_bytes(
    call: int, parts: Parts, tmp_path: Path
) -> None:
    """In the fit of the mapper (24 images in batches of 8), and in the measuring of the last weights."""
    config = configure(steps=3, mapper_start="ridge", gradient="sds")
    watched = replace(parts, validation=Subset(parts.pairs, range(6)))
    calls = count(1)

    class Ending(Watcher):
        def on_batch(self, stage: str, done: int, total: int) -> None:
            if next(calls) == call:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        train(config, watched, tmp_path / "twice", PLACE, watcher=Ending())
    train(config, watched, tmp_path / "twice", PLACE, resume=True)
    train(config, watched, tmp_path / "once", PLACE)
    assert delta_bytes(tmp_path / "twice") == delta_bytes(tmp_path / "once")


def test_the_resolved_configuration_is_saved_and_gives_the_run_again(parts: Parts, tmp_path: Path) -> None:
    config = configure(t_schedule="annealed", precision="auto")
    train(config, parts, tmp_path / "one", PLACE)
    saved = parse_config(yaml.safe_load((tmp_path / "one" / "config.yaml").read_text()))
    here = choose_precision("auto", PLACE.device)
    resolved = {"precision": here, "teacher_precision": here}
    assert saved == config.model_copy(update=resolved)
    assert saved.sds_weight is None  # so that the file serves an objective with another default
    train(saved, parts, tmp_path / "two", PLACE)
    assert delta_bytes(tmp_path / "one") == delta_bytes(tmp_path / "two")


def test_the_mapper_can_start_as_the_ridge_fit_to_the_vae_s_latents(parts: Parts, tmp_path: Path) -> None:
    """Against numpy's least squares with the ridge as further rows, in the student's crop and the VAE's range."""
    assert parts.teacher is not None
    config = configure(steps=1, mapper_start="ridge", ridge=0.1, ridge_images=20, mapper_lr=1e-30)
    train(config, parts, tmp_path, PLACE)
    images = [parts.pairs.image(int(index)) for index in order(24, config.seed, epoch=0)[:20]]
    features = parts.base.encode_image(torch.stack([parts.base.preprocess(image) for image in images]))
    pixels = np.stack([np.asarray(image.resize((64, 64), 3), np.float32) / 127.5 - 1 for image in images])
    vae: Any = parts.teacher.vae
    with torch.no_grad():
        encoded = vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2)).latent_dist.mode()
    x, z = features.double().numpy(), (encoded * vae.config.scaling_factor).flatten(1).double().numpy()
    rows = np.concatenate([x - x.mean(0), np.sqrt(0.1) * np.eye(32)])
    expected, *_ = np.linalg.lstsq(rows, np.concatenate([z - z.mean(0), np.zeros((32, 256))]))
    found = last_checkpoint(tmp_path)["mapper.linear.weight"]
    torch.testing.assert_close(found.double(), torch.from_numpy(expected.T), rtol=0.02, atol=0.02)

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diffusers import PixArtSigmaPipeline

import sds_clip.demo.sets
import sds_clip.demo.train_vae
import sds_clip.demo.winoground_sets
from sds_clip.demo import build_teacher as build
from sds_clip.demo.teacher_validation import load_teacher_validation
from sds_clip.demo.train_teacher import TeacherRecipe
from sds_clip.demo.train_text_encoder import TextRecipe
from sds_clip.demo.train_vae import VaeRecipe
from sds_clip.demo.world import Scene, Split, draw_scene_of

SHORT = TeacherRecipe(steps=2, batch_size=4, pool_size=8, warmup_steps=1)
SHORT_TEXT = TextRecipe(steps=2, batch_size=4, warmup_steps=1)
SHORT_VAE = VaeRecipe(steps=4, batch_size=4, warmup_steps=2)
WORLD = partial(build.shapes, Path(), SHORT.seed)


@dataclass
class Built:
    folder: Path
    seconds: float
    trained_on: set[Split]
    watched_on: set[Split]


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    """Few captions, images and items."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "TOKENIZER_CAPTIONS", 1024)
        patch.setattr(build, "load_teacher_validation", partial(load_teacher_validation, items_per_kind=1))
        patch.setattr(sds_clip.demo.train_vae, "SCALE_IMAGES", 64)
        yield patch


@pytest.fixture(scope="module")
def built(small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    trained_on, watched_on = set[Split](), set[Split]()

    def watched(parts: set[Split], split: Split, rng: np.random.Generator) -> Scene:
        parts.add(split)
        return draw_scene_of(split, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sds_clip.demo.sets, "draw_scene_of", partial(watched, trained_on))
        patch.setattr(sds_clip.demo.winoground_sets, "draw_scene_of", partial(watched, watched_on))
        seconds = build.build_teacher(
            build.Build(SHORT, folder / "teacher", folder / "work"), WORLD(), SHORT_VAE, SHORT_TEXT
        )
    return Built(folder, seconds, trained_on, watched_on)


def test_teacher_is_trained_on_the_training_part_alone(built: Built) -> None:
    assert built.trained_on == {Split.TRAIN}
    assert built.watched_on == {Split.VALIDATION}


def test_built_folder_loads(built: Built) -> None:
    pipeline = PixArtSigmaPipeline.from_pretrained(built.folder / "teacher")
    assert pipeline.vae.config.scaling_factor != 0.18215  # its own, not Stable Diffusion's
    assert built.seconds > 0


def test_finished_build_is_written_again_without_training(built: Built) -> None:
    again = build.build_teacher(
        build.Build(SHORT, built.folder / "again", built.folder / "work"), WORLD(), SHORT_VAE, SHORT_TEXT
    )
    assert again == built.seconds
    for file in (built.folder / "teacher").rglob("*.*"):
        name = file.relative_to(built.folder / "teacher")
        assert (built.folder / "again" / name).read_bytes() == file.read_bytes(), name


def test_placebo_keeps_the_teachers_autoencoder_tokenizer_and_latents(
    built: Built, small: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    latents = (built.folder / "work" / "latents.npy").stat().st_mtime_ns
    recipe = replace(SHORT, binding=False)
    placebo = build.Build(recipe, tmp_path, built.folder / "work", built.folder / "teacher" / "vae")
    build.build_teacher(placebo, WORLD(), SHORT_VAE, SHORT_TEXT)
    assert (built.folder / "work" / "latents.npy").stat().st_mtime_ns == latents
    for file in (built.folder / "teacher").rglob("*.*"):
        name = file.relative_to(built.folder / "teacher")
        trained = name.suffix == ".safetensors" and name.parts[0] != "vae"
        assert ((tmp_path / name).read_bytes() == file.read_bytes()) != trained, name


def test_command_says_where_it_works_and_how_long_training_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def built(*arguments: object) -> float:
        asked.extend(arguments)
        return 5400.0

    monkeypatch.setattr(build, "build_teacher", built)
    options = ["--into", str(tmp_path), "--steps", "7", "--placebo", "--compile", "--vae", "some/vae"]
    monkeypatch.setattr(sys, "argv", ["build_teacher", *options])
    build.main()
    recipe = replace(TeacherRecipe(), steps=7, binding=False)
    assert asked == [
        build.Build(recipe, tmp_path, build.WORK_DIR, Path("some/vae"), compiled=True),
        WORLD(),
        VaeRecipe(),
        TextRecipe(),
    ]
    printed = capsys.readouterr().out
    assert str(build.WORK_DIR) in printed
    assert "90 minutes" in printed


@pytest.mark.parametrize("options", [["--steps", "7"], ["--steps", "0"], ["--steps", "many"]])
def test_a_trial_does_not_replace_the_demo_s_teacher(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build_teacher", lambda *_: pytest.fail("It was trained."))
    monkeypatch.setattr(sys, "argv", ["build_teacher", *options])
    with pytest.raises(SystemExit, match="2"):
        build.main()

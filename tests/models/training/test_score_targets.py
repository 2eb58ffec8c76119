import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet, Subset
from sds_clip.models.errors import DataError, TeacherError, TrainingError
from sds_clip.models.losses.score import teacher_choice
from sds_clip.models.teacher.diffusion_score import draws
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.parts import Parts, WithNegatives
from sds_clip.models.training.run import train
from sds_clip.models.training.score_targets import BaseScores, LabelScores, ShuffledScores, TeacherScores
from tests.teachers import save_sd_teacher
from tests.training import PLACE, Stopper, configure

CANDIDATES = ("a red circle", "a blue circle", "a circle red")


def targets_of(
    base: Clip,
    pairs: PairSet,
    teacher: Teacher,
    kind: type[TeacherScores] = TeacherScores,
    **options: Any,
) -> TeacherScores:
    asked: dict[str, Any] = {"score_draws": 3, "negatives_seed": 2, **options}
    config = configure(objective="score", negatives="swap", **asked)
    return kind(config, teacher, Latents(base, teacher, pairs))


@pytest.mark.parametrize("error", ["epsilon", "velocity"])
def test_errors_are_the_teacher_s_under_each_caption_on_common_noise(
    error: str, base: Clip, pairs: PairSet, teacher: Teacher, teacher_folder: Path
) -> None:
    """The velocity's is the noise's over sqrt(abar), for a teacher that predicts noise."""
    found = targets_of(base, pairs, teacher, score_error=error)([4], [CANDIDATES], 3)[0]
    chosen = draws(3, (4, 8, 8), 1000, seed=2 * 1_000_003 + 4, t_min=0.3, t_max=0.95)
    image = pairs.image(4).resize((64, 64), 3)  # bicubic, as the student's preprocessing has it
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 64, 64, 3)
    scheduler = DDIMScheduler.from_pretrained(teacher_folder, subfolder="scheduler")
    expected = []
    with torch.no_grad():
        encoded = teacher.vae.encode(pixels.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
        latents = (encoded * teacher.vae.config.scaling_factor).expand(3, -1, -1, -1)
        noisy = scheduler.add_noise(latents, chosen.noise, chosen.timesteps)
        for caption in CANDIDATES:
            embedding = teacher.encode_captions([caption]).expand(3, -1, -1)
            output = teacher.denoiser(noisy, chosen.timesteps, embedding).sample
            abar = scheduler.alphas_cumprod[chosen.timesteps].view(-1, 1, 1, 1)
            off = (output - chosen.noise) / (abar.sqrt() if error == "velocity" else 1)
            expected.append(off.square().mean())
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_sample_s_errors_do_not_depend_on_its_company(base: Clip, pairs: PairSet, teacher: Teacher) -> None:
    together = targets_of(base, pairs, teacher)([4, 7], [CANDIDATES, CANDIDATES[:2]], 3)
    alone: list[Tensor] = [
        targets_of(base, pairs, teacher)([sample], [candidates], 3)[0]
        for sample, candidates in ((7, CANDIDATES[:2]), (4, CANDIDATES))
    ]
    assert torch.equal(together[0], alone[1])
    assert torch.equal(together[1], alone[0])
    assert together[1, 2] == together[1, 0]  # an unused column repeats the first


def test_one_candidate_is_not_scored(base: Clip, pairs: PairSet, teacher: Teacher) -> None:
    class Unseen(Subset):
        def image(self, index: int) -> Image.Image:
            raise AssertionError("its image has no part in this")

    unseen = targets_of(base, Unseen(pairs, range(8)), teacher)
    assert unseen([4], [CANDIDATES[:1]], 3).tolist() == [[0.0, 0.0, 0.0]]


def test_no_more_samples_are_kept_than_there_is_room_for(
    base: Clip, pairs: PairSet, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(Subset):
        def image(self, index: int) -> Image.Image:
            scored.append(index)
            return super().image(index)

    monkeypatch.setattr("sds_clip.models.training.score_targets.MAX_KNOWN", 2)
    scored: list[int] = []
    bounded = targets_of(base, Watched(pairs, range(8)), teacher)
    asked = ([4, 7, 5], [CANDIDATES] * 3, 3)
    first = bounded(*asked)
    assert scored == [4, 7, 5]
    assert torch.equal(bounded(*asked), first)
    assert scored == [4, 7, 5, 5]


def test_two_samples_are_scored_on_noise_of_their_own(base: Clip, pairs: PairSet, teacher: Teacher) -> None:
    class OneImage(Subset):
        def image(self, index: int) -> Image.Image:
            return super().image(0)

    found = targets_of(base, OneImage(pairs, range(8)), teacher)([4, 7], [CANDIDATES] * 2, 3)
    assert not torch.equal(found[0], found[1])


def test_velocity_up_to_pure_noise_is_scored_for_a_teacher_that_predicts_it(
    base: Clip, pairs: PairSet, tmp_path: Path
) -> None:
    teachers = [
        load_teacher(
            str(
                save_sd_teacher(
                    tmp_path / kind, prediction_type=kind, scheduler={"rescale_betas_zero_snr": True}
                )
            ),
            device="cpu", precision="float32", vae=True,
        )
        for kind in ("v_prediction", "epsilon")
    ]  # fmt: skip
    only_noise: dict[str, Any] = {"score_t_min": 0.999, "score_t_max": 1, "score_error": "velocity"}
    asked = ([4], [CANDIDATES], 3)
    assert targets_of(base, pairs, teachers[0], **only_noise)(*asked).isfinite().all()
    # That of the noise would be divided by abar = 0.
    with pytest.raises(TeacherError, match="abar is 0"):
        targets_of(base, pairs, teachers[1], **only_noise)(*asked)


def test_shuffled_errors_are_the_teacher_s_in_every_order(
    base: Clip, pairs: PairSet, teacher: Teacher
) -> None:
    """An order that occurred never, or always, would tell something about the image."""
    asked = (range(24), [CANDIDATES] * 24, 3)
    orders = Counter[tuple[int, ...]]()
    for seed in range(4):
        options: dict[str, Any] = {"score_draws": 1, "negatives_seed": seed}
        own = targets_of(base, pairs, teacher, **options)(*asked).tolist()
        shuffled = targets_of(base, pairs, teacher, ShuffledScores, **options)(*asked).tolist()
        assert [sorted(row) for row in shuffled] == [sorted(row) for row in own]
        orders.update(tuple(map(row.index, given)) for row, given in zip(own, shuffled, strict=True))
    assert len(orders) == 6
    assert max(orders.values()) < 32  # 16 of 96 are expected; as many as 32 have a probability of 1e-4 in all


def test_a_sample_keeps_the_order_of_its_shuffled_errors(
    base: Clip, pairs: PairSet, teacher: Teacher
) -> None:
    """Else a run would see the mean of all orders, or go on with others after a checkpoint."""
    together = targets_of(base, pairs, teacher, ShuffledScores)([4, 7], [CANDIDATES, CANDIDATES[:2]], 3)
    alone = [
        targets_of(base, pairs, teacher, ShuffledScores)([sample], [candidates], 3)[0]
        for sample, candidates in ((4, CANDIDATES), (7, CANDIDATES[:2]))
    ]
    assert torch.equal(together, torch.stack(alone))
    own = targets_of(base, pairs, teacher)([7], [CANDIDATES[:2]], 3)[0]
    assert set(together[1, :2].tolist()) == set(own.tolist())
    assert together[1, 2] == together[1, 0]  # an unused column repeats the first


def test_the_base_s_choice_is_the_softmax_of_open_clip_s_logits(base: Clip, pairs: PairSet) -> None:
    config = configure(objective="score", negatives="swap", score_by="base", teacher=None)
    errors = BaseScores(config, base, pairs)([4, 7], [CANDIDATES, CANDIDATES[:2]], 3)
    pixels = torch.stack([base.preprocess(pairs.image(index)) for index in (4, 7)])
    with torch.no_grad():
        logits, _ = base.network.get_logits(pixels, base.tokenizer(list(CANDIDATES)))
    valid = torch.tensor([[True, True, True], [True, True, False]])
    found = teacher_choice(errors, temperature=config.score_temperature, valid=valid).exp()
    torch.testing.assert_close(found[0], logits[0].softmax(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1, :2], logits[1, :2].softmax(dim=0), rtol=1e-4, atol=1e-6)


def labelled(out: Path, pairs: PairSet, *, without: int = -1, **changed: Any) -> FinetuneConfig:
    """A file of labels for two candidates of each sample; those of the sample `changed` are replaced."""
    lines = []
    for index in range(len(pairs)):
        sample = pairs.sample(index)
        caption, negative = sample.captions[0], sample.negatives[0][0]
        line: dict[str, Any] = {"image": sample.name, "caption": caption}
        line |= {"right": negative} if index % 2 else {"probabilities": {negative: 0.75, caption: 0.25}}
        if index == 1 and changed:
            line = {"image": sample.name, "caption": caption, **changed}
        if index != without:
            lines.append(json.dumps(line))
    out.write_text(
        "\n".join([*lines, json.dumps({"image": "of other data.png", "caption": "c", "right": "c"})])
    )
    choice = {"negatives": "swap", "negatives_count": 1, "negatives_balance": False}
    return configure(objective="score", score_by="labels", labels=out, teacher=None, **choice)


def test_labels_of_a_file_are_the_choices(pairs: PairSet, tmp_path: Path) -> None:
    swapped = WithNegatives(pairs, 1, 0)
    config = labelled(tmp_path / "labels.jsonl", swapped)
    targets = LabelScores(config, swapped, torch.device("cpu"))
    candidates = [
        (swapped.sample(index).captions[0], *swapped.sample(index).negatives[0]) for index in (4, 5)
    ]
    errors = targets([4, 5], candidates, 3)
    chosen = (-errors[:, :2] / config.score_temperature).softmax(dim=1)
    torch.testing.assert_close(chosen, torch.tensor([[0.25, 0.75], [0.0, 1.0]]), rtol=1e-4, atol=1e-6)
    assert torch.equal(errors[:, 2], errors[:, 0])  # an unused column


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"right": "something else"}, r"'something else' is none of the candidates \('a "),
        ({"probabilities": {"something else": 1.0}}, "'something else' is none of the candidates"),
        ({"probabilities": {}}, "the candidate 'a .*' has no probability"),
        ({}, 'must be an object with "image"'),
        ({"right": "a", "probabilities": {}}, 'must be an object with "image"'),
        ({"probabilities": [0.5, 0.5]}, 'must be an object with "image"'),
    ],
)
def test_a_label_that_does_not_fit_is_refused_with_its_sample_and_line(
    line: dict[str, Any], message: str, pairs: PairSet, tmp_path: Path
) -> None:
    swapped = WithNegatives(pairs, 1, 0)
    config = labelled(tmp_path / "labels.jsonl", swapped, other=1, **line)
    with pytest.raises(DataError, match=rf"labels\.jsonl, line 2, 1\.png.*{message}"):
        LabelScores(config, swapped, torch.device("cpu"))


@pytest.mark.parametrize("values", [(0.5, 0.6), (1.5, -0.5), (True, False), ("1", 0)])
def test_labels_that_are_no_probabilities_are_refused(
    values: tuple[Any, Any], pairs: PairSet, tmp_path: Path
) -> None:
    swapped = WithNegatives(pairs, 1, 0)
    sample = swapped.sample(1)
    candidates = (sample.captions[0], *sample.negatives[0])
    given = dict(zip(candidates, values, strict=True))
    config = labelled(tmp_path / "labels.jsonl", swapped, probabilities=given)
    with pytest.raises(DataError, match=r"line 2, 1\.png.*from 0 to 1, and their sum 1"):
        LabelScores(config, swapped, torch.device("cpu"))


def test_a_choice_without_a_label_and_one_with_two_are_refused(pairs: PairSet, tmp_path: Path) -> None:
    swapped, file = WithNegatives(pairs, 1, 0), tmp_path / "labels.jsonl"
    config = labelled(file, swapped, without=3)
    with pytest.raises(DataError, match=r"labels\.jsonl has no line for 3\.png and 'a "):
        LabelScores(config, swapped, torch.device("cpu"))
    config = labelled(file, swapped)
    file.write_text("\n".join([file.read_text(), file.read_text().splitlines()[0]]))
    with pytest.raises(DataError, match=r"line 26: 0\.png has a label for 'a .*' on line 1, too"):
        LabelScores(config, swapped, torch.device("cpu"))


def test_a_run_by_labels_needs_no_teacher_and_is_not_resumed_with_other_labels(
    parts: Parts, tmp_path: Path
) -> None:
    swapped, file = WithNegatives(parts.pairs, 1, 0), tmp_path / "labels.jsonl"
    config, own = labelled(file, swapped), Parts(parts.base, parts.pairs)
    straight = train(config, own, tmp_path / "straight", PLACE)
    train(config, own, tmp_path / "twice", PLACE, watcher=Stopper(lambda: True))
    moved = config.model_copy(update={"labels": file.rename(tmp_path / "moved.jsonl")})
    resumed = train(moved, own, tmp_path / "twice", PLACE, resume=True)
    assert straight.delta is not None
    assert resumed.delta is not None
    first, second = (each.delta / "delta.safetensors" for each in (straight, resumed) if each.delta)
    assert first.read_bytes() == second.read_bytes()
    train(moved, own, tmp_path / "other", PLACE, watcher=Stopper(lambda: True))
    labelled(tmp_path / "moved.jsonl", swapped, right=swapped.sample(1).captions[0])
    with pytest.raises(TrainingError, match="labels_hash"):
        train(moved, own, tmp_path / "other", PLACE, resume=True)

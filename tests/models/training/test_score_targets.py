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
from sds_clip.models.errors import TeacherError
from sds_clip.models.losses.score import teacher_choice
from sds_clip.models.teacher.diffusion_score import draws
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.score_targets import BaseScores, ShuffledScores, TeacherScores
from tests.teachers import save_sd_teacher
from tests.training import configure

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

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sds_clip.demo.emoji.pictures import SIDE_PX
from sds_clip.demo.emoji.train_student import Batches, Recipe, _tokenizer, train
from tests.demo.emoji.worlds import little_world

SHORT = Recipe(steps=4, batch_size=16, scenes=4, halved_steps=2, warmup_steps=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    work = tmp_path_factory.mktemp("whole")
    return work, dict(train(SHORT, little_world(), work, watch_every=4, scenes=128).state_dict())


def test_a_stopped_run_goes_on_to_the_same_weights(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sds_clip.demo.emoji.train_student._watch", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            train(SHORT, little_world(), tmp_path, save_every=2, watch_every=3)
    again = train(SHORT, little_world(), tmp_path, watch_every=4, scenes=128).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole[1].items())


def test_the_log_has_each_figure_of_the_watched_pictures(
    whole: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    (line,) = map(json.loads, (whole[0] / "log.jsonl").read_text().splitlines())
    assert 0 <= line["GroupMatch of places"] <= 1
    assert set(line) > {
        "all, top 1",
        "trained, top 5",
        "untrained among themselves, top 1",
        "GroupMatch of sizes",
    }


def test_the_first_steps_see_the_same_pictures_at_half_their_side(tmp_path: Path) -> None:
    pictures = little_world()
    tokenizer = _tokenizer(pictures, tmp_path)
    first, second = (Batches(replace(SHORT, halved_steps=steps), pictures, tokenizer) for steps in (1, 0))
    (small, said), (large, also_said) = first(0), second(0)
    assert large.shape[2:] == (SIDE_PX, SIDE_PX)
    assert torch.allclose(small[:, :, 3, 5], large[:, :, 6:8, 10:12].mean(dim=(2, 3)), atol=1e-5)
    assert torch.equal(said, also_said)
    assert first(1)[0].shape == second(1)[0].shape

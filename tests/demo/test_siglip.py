"""A small SigLIP of the demo world learns from the teacher in a service, is measured by the gate, and is swapped in."""

from pathlib import Path

import pytest
import torch

from sds_clip import Client
from sds_clip.demo.folders import write_image_folder, write_retrieval
from sds_clip.demo.live import CAPTIONS, DATA, PICTURE
from sds_clip.demo.sets import retrieval_set
from sds_clip.demo.siglip import build
from sds_clip.demo.train_student import Recipe
from sds_clip.demo.training_set import DemoPairs
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from tests.sds_clip.embedded import Running


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "siglip"
    build(folder, Recipe(steps=2, heads_steps=1, batch_size=8, warmup_steps=1))
    return folder


def test_it_is_a_siglip_that_reads_the_words_of_the_world(siglip: Path) -> None:
    clip = load_clip(f"local-dir:{siglip}", device="cpu", precision="float32")
    assert clip.logit_bias == pytest.approx(-10, abs=0.1)
    assert clip.image_size == (64, 64)
    first, other = clip.tokenizer(list(CAPTIONS))
    assert not torch.equal(first, other)


def probabilities(client: Client) -> list[float]:
    found: list[float] = client.match([PICTURE], list(CAPTIONS))["results"][0]["probabilities"]
    return found


@pytest.mark.long
def test_it_is_distilled_gated_and_swapped(siglip: Path, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "pairs", DemoPairs(16))
    write_retrieval(tmp_path / "retrieval", retrieval_set(Split.VALIDATION, 64))
    running = Running(tmp_path, SDS_CLIP_MODELS=f"local-dir:{siglip}")
    try:
        with Client(running.url) as client:
            first = client.model("default")["id"]
            assert probabilities(client)[0] + probabilities(client)[1] < 0.1  # sigmoids, which sum to no 1
            client.upload_dataset(tmp_path / "pairs", format="pairs", name="pairs")
            client.upload_dataset(DATA / "validation", format="winoground", name="winoground")
            client.upload_dataset(tmp_path / "retrieval", format="retrieval", name="retrieval")
            job = client.finetune(
                "pairs",
                objective="score",
                teacher="demo",
                hyperparameters={"steps": 2, "batch_size": 8, "negatives": "swap", "score_draws": 1},
                evaluate=[{"benchmark": name, "data": name} for name in ("winoground", "retrieval")],
                promote="if_better",
            ).wait()
            assert job.version is not None
            assert job.result is not None
            assert job.result["promotion"]["promoted"] is False
            assert client.model("default")["id"] == first
            before = probabilities(client)
            client.promote(str(job.version), reason="a trial", force=True, wait_s=60)
            assert probabilities(client) != before
            client.rollback("default", reason="the end", wait_s=60)
            assert probabilities(client) == before
    finally:
        running.close()

"""Features that jobs share: computed once, bounded, and never waited for."""

from pathlib import Path

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.evaluation.scorers import ClipScorer
from tests.checkpoints import save_tiny_clip
from tests.worker.work import Asked, Encoded, Work, result_of


def test_second_job_encodes_nothing(
    work: Work, tiny_folder: Path, winoground_id: str, tmp_path: Path, encoded: Encoded
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id}
    one, other = f"local-dir:{tiny_folder}", f"local-dir:{save_tiny_clip(tmp_path / 'other', seed=7)}"
    first = work.evaluated(**asked, model=one, baseline=other)
    assert encoded == [{"images": 8, "texts": 8}] * 2
    again = work.evaluated(**asked, model=one, baseline=other)
    work.evaluated(**asked, model=other)
    assert encoded[2:] == [{"images": 0, "texts": 0}] * 3
    assert result_of(again)["metrics"] == result_of(first)["metrics"]


def test_version_that_a_job_has_made_is_not_encoded_again(
    work: Work, tuning: Asked, winoground_id: str, encoded: Encoded
) -> None:
    job = work.finetuned(tuning | {"evaluate": [{"benchmark": "winoground", "data": winoground_id}]})
    work.evaluated(benchmark="winoground", data=winoground_id, model=job.result_version)
    assert encoded == [{"images": 8, "texts": 8}, {"images": 0, "texts": 0}]


def test_job_does_not_wait_for_features_that_another_has_open(
    work: Work, tiny_folder: Path, winoground_id: str, encoded: Encoded
) -> None:
    model = f"local-dir:{tiny_folder}"
    with ClipScorer(load_clip(model, device="cpu", precision="float32"), work.config.features_dir):
        work.evaluated(benchmark="winoground", data=winoground_id, model=model)
        assert encoded == [{"images": 8, "texts": 8}]


def test_features_are_kept_within_the_bound(
    work: Work, tiny_folder: Path, winoground_id: str, encoded: Encoded
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    for _ in range(2):
        work.evaluated(changes={"feature_cache_bytes": 0}, **asked)
    assert encoded == [{"images": 8, "texts": 8}] * 2

"""Variables that were settings: they are named once, and documented."""

import json
import re
from pathlib import Path

import pytest

from sds_clip.app.retired import RETIRED
from sds_clip.app.settings import Settings
from sds_clip.options import read_settings, read_worker_config
from sds_clip.worker.config import WorkerConfig

ROOT = Path(__file__).parents[2]


def test_a_retired_variable_that_is_still_set_is_named_once_and_has_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("SDS_CLIP_MAX_TEXTS", "sds_clip_url_timeout_s", "SDS_CLIP_STALL_TIMEOUT_S"):
        monkeypatch.setenv(name, "no number")

    read_settings(log_format="json")
    config = read_worker_config("finetune", broker_url="b", database_url="d")

    (told,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert told["level"] == "warning"
    assert (
        "no effect: SDS_CLIP_MAX_TEXTS, SDS_CLIP_STALL_TIMEOUT_S, sds_clip_url_timeout_s. Remove"
        in told["message"]
    )
    assert config.stall_timeout_s == 1800


def test_a_worker_names_it_too_and_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDS_CLIP_STALL_TIMEOUT_S", "1")
    config = read_worker_config("finetune", broker_url="b", database_url="d")
    assert "SDS_CLIP_STALL_TIMEOUT_S" in capsys.readouterr().err
    assert config.stall_timeout_s == 1800


def test_nothing_retired_is_a_setting_of_the_service() -> None:
    assert not RETIRED & Settings.model_fields.keys()


def test_the_upgrade_says_of_each_what_counts_now() -> None:
    page = (ROOT / "docs" / "how-to" / "upgrade.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `SDS_CLIP_(\w+)` \| \w.* \|$", page, re.MULTILINE)
    assert sorted(map(str.lower, rows)) == sorted(RETIRED)


def test_defaults_are_those_of_the_settings_that_went() -> None:
    settings = Settings()
    assert settings.max_image_bytes == 20 * 2**20
    assert settings.max_requests_per_key == 64
    assert settings.max_queue_per_key == 3072
    assert settings.max_buffered_bytes_per_key == 128 * 2**20
    assert settings.max_body_bytes_per_s_per_key == 64 * 2**20
    assert settings.max_event_streams_per_key == 16
    assert settings.max_open_jobs_per_key == 100


@pytest.mark.parametrize(("share", "requests"), [(1.0, 256), (0.001, 1)])
def test_a_key_has_its_share_and_one_at_least(share: float, requests: int) -> None:
    assert Settings(key_share=share).max_requests_per_key == requests


def test_settings_are_sixty_at_most() -> None:
    """The service's and the worker's, whose own device, threads and nice are variables of the same settings."""
    workers = WorkerConfig.__dataclass_fields__.keys() - {"queue", "limits", "retention"} - RETIRED
    assert len(Settings.model_fields.keys() | workers) <= 60

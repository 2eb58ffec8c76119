from dataclasses import fields

import click
import pytest

from sds_clip.app.retention.policy import Rules
from sds_clip.app.settings import Settings
from sds_clip.options import read_worker_config
from sds_clip.worker.config import OWN_VARIABLES, WorkerConfig
from tests.sds_clip.transcript import test_transcript  # noqa: F401


@pytest.mark.parametrize(("lease", "is_enough"), [("6", False), ("19.9", False), ("20", True)])
def test_a_lease_too_short_to_be_renewed_in_time_is_refused_and_it_says_why(
    monkeypatch: pytest.MonkeyPatch, lease: str, is_enough: bool
) -> None:
    monkeypatch.setenv("SDS_CLIP_BROKER_URL", "redis://localhost/0")
    monkeypatch.setenv("SDS_CLIP_DATABASE_URL", "sqlite:////db")
    monkeypatch.setenv("SDS_CLIP_LEASE_TTL_S", lease)
    if is_enough:
        assert read_worker_config("finetune").lease_ttl_s == float(lease)
        return
    with pytest.raises(click.ClickException, match=r"SDS_CLIP_LEASE_TTL_S.*at least 20\. .*renews its lease"):
        read_worker_config("finetune")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("MAX_TURN_S", "59", "at least 60, or 0"),
        ("MAX_TURN_S", "-1", "at least 60, or 0"),
        ("MAX_TURN_S", "nan", "at least 60, or 0"),
        ("SHARE_WEIGHTS", "team-a=0", "weight of team-a must be from 0.001 to 1000"),
        ("SHARE_WEIGHTS", "team-a=1e-320", "weight of team-a must be from 0.001 to 1000"),
        ("SHARE_WEIGHTS", "team-a=nan", "weight of team-a must be from 0.001 to 1000"),
        ("SHARE_WEIGHTS", "team-a=inf", "weight of team-a must be from 0.001 to 1000"),
        ("SHARE_WEIGHTS", "team-a=1, team-b=1,team-a=2", "team-a has two weights"),
        ("SHARE_WEIGHTS", " =2", "a name and a weight for each key"),
        ("SHARE_WEIGHTS", "team-a", "a name and a weight for each key"),
    ],
)
def test_turns_and_weights_that_cannot_be_meant_are_refused_and_it_says_why(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(f"SDS_CLIP_{name}", value)
    with pytest.raises(click.ClickException, match=f"SDS_CLIP_{name}.*{why}"):
        read_worker_config("finetune", broker_url="b", database_url="d")


@pytest.mark.parametrize("turn", ["0", "60", "86400"])
def test_turn_may_be_long_or_without_an_end(monkeypatch: pytest.MonkeyPatch, turn: str) -> None:
    monkeypatch.setenv("SDS_CLIP_MAX_TURN_S", turn)
    assert read_worker_config("finetune", broker_url="b", database_url="d").max_turn_s == float(turn)


def test_every_setting_reaches_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "BROKER_URL": "redis://localhost/0",
        "DATABASE_URL": "sqlite:////db",
        "DATA_DIR": "/data",
        "DATASET_ROOTS": "/one,/two",
        "DEVICE": "cpu",
        "WORKER_THREADS": "3",
        "GPU_MEMORY_SHARE": "0.5",
        "LEASE_TTL_S": "30",
        "STOP_GRACE_S": "90",
        "STORE_TIMEOUT_S": "4",
        "KEEP_WARM": "false",
        "KEEP_FILES_S": "10",
        "SHARE_WEIGHTS": "team-a=3, team-b=0.5",
        "LOG_TO": "tensorboard",
        "KEEP_JOBS_S": "1",
        "KEEP_EVALUATIONS_S": "2",
        "KEEP_VERSIONS_S": "3",
        "KEEP_DATASETS_S": "4",
        "KEEP_ROLLBACKS": "5",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"SDS_CLIP_{name}", value)
    config = read_worker_config("finetune")
    assert config.queue == "finetune"
    assert (config.broker_url, config.database_url) == ("redis://localhost/0", "sqlite:////db")
    assert [str(path) for path in (config.data_dir, *config.dataset_roots)] == ["/data", "/one", "/two"]
    assert (config.device, config.threads, config.gpu_memory_share) == ("cpu", 3, 0.5)
    assert (config.lease_ttl_s, config.stop_grace_s) == (30, 90)
    assert (config.store_timeout_s, config.keep_files_s) == (4, 10)
    assert config.share_weights == {"team-a": 3.0, "team-b": 0.5}
    assert config.retention == Rules(1, 2, 3, 4, 5)
    assert WorkerConfig.loads(config.dumps()) == config
    assert config.log_to == "tensorboard"
    assert not config.keep_warm


def test_a_worker_has_its_own_device_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_WORKER_DEVICE", "cuda:1")
    given = {"broker_url": "b", "database_url": "d", "device": "cpu"}
    assert read_worker_config("evaluate", **given).device == "cuda:1"
    assert read_worker_config("evaluate", **given, worker_device="cuda:2").device == "cuda:2"
    assert read_worker_config("evaluate", **given, threads=3).threads == 0  # those are the service's


def test_what_service_and_worker_share_has_one_default() -> None:
    settings = Settings()
    config = read_worker_config("finetune", broker_url="b", database_url="d")
    shared = {field.name for field in fields(WorkerConfig)} & Settings.model_fields.keys()
    shared -= {"broker_url", "database_url", "data_dir", "dataset_roots"}
    assert {"device", "store_timeout_s", "log_level"} <= shared
    for name in shared - OWN_VARIABLES.keys():
        assert getattr(config, name) == getattr(settings, name), name

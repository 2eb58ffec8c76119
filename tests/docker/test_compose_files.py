"""The compose files: their schema, and what must hold for them to run unedited and lose nothing."""

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from sds_clip.app.retired import RETIRED
from sds_clip.app.settings import Settings
from sds_clip.worker.config import OWN_VARIABLES, WorkerConfig
from tests.docker.compose import (
    BASE,
    GPU,
    MONITORING,
    REPOSITORY,
    has_health_check,
    load,
    seconds,
    services,
    text,
    variables,
)

ONE_SHOT = {"init", "migrate"}
CHECKER = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(CHECKER is None, reason="check-jsonschema, which carries the schema, is not installed")
@pytest.mark.parametrize("file", [BASE, GPU, MONITORING])
def test_file_keeps_the_compose_schema(file: str) -> None:
    assert CHECKER is not None
    command = [CHECKER, "--builtin-schema", "vendor.compose-spec", str(REPOSITORY / file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_but_the_api_is_published_and_that_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}
    assert services()["api"]["environment"]["SDS_CLIP_KEYS_FILE"] == "/secrets/keys/keys.json"


def test_everything_is_started_again_but_what_runs_once() -> None:
    policies = {name: service["restart"] for name, service in services().items()}
    assert {name for name, policy in policies.items() if policy == "no"} == ONE_SHOT
    assert set(policies.values()) == {"no", "unless-stopped"}


def test_every_dependency_is_waited_for_in_a_way_that_can_come_true() -> None:
    all_services = services()
    for service in all_services.values():
        for name, how in service.get("depends_on", {}).items():
            if name in ONE_SHOT:
                assert how == {"condition": "service_completed_successfully"}
            else:
                assert how == {"condition": "service_healthy"}
                assert has_health_check(all_services[name])


def test_everything_that_stays_has_a_health_check() -> None:
    checked = {name for name, service in services().items() if has_health_check(service)}
    assert checked == services().keys() - ONE_SHOT


def test_who_needs_a_password_starts_after_it_was_made() -> None:
    all_services = services()

    def comes_after_init(name: str) -> bool:
        before = all_services[name].get("depends_on", {})
        return "init" in before or any(comes_after_init(one) for one in before)

    assert all(comes_after_init(name) for name in all_services.keys() - {"init"})


def test_a_job_has_time_for_its_checkpoint_and_a_request_for_its_answer() -> None:
    all_services = services()
    job_s = WorkerConfig.stop_grace_s
    for name in ("worker-finetune", "worker-evaluate"):
        assert seconds(all_services[name]["stop_grace_period"]) >= job_s + 15
    request_s = Settings.model_fields["drain_timeout_s"].default
    assert seconds(all_services["api"]["stop_grace_period"]) >= request_s + 10


def test_a_request_comes_before_a_step_of_training() -> None:
    all_services = services()
    shares = {name: all_services[name].get("cpu_shares", 1024) for name in all_services}
    behind = {name for name, share in shares.items() if share < 1024 / 5}
    assert behind == {"worker-finetune", "worker-evaluate"}


def test_redis_keeps_everything_and_evicts_nothing() -> None:
    redis = services()["redis"]
    options = redis["command"][2:]
    told = dict(zip(options[::2], options[1::2], strict=True))
    assert told["--appendonly"] == "yes"
    assert told["--maxmemory-policy"] == "noeviction"
    assert "redis:/data" in redis["volumes"]


def test_every_named_volume_is_declared_and_used() -> None:
    sources = {mount.split(":")[0] for service in services().values() for mount in service["volumes"]}
    assert sources == load(BASE)["volumes"].keys()


SECRETS = {
    "init": {"postgres-password", "redis-password", "keys", "admin-key", "secrets"},
    "migrate": {"postgres-password", "redis-password"},
    "postgres": {"postgres-password"},
    "redis": {"redis-password"},
    "api": {"postgres-password", "redis-password", "keys"},
    "worker-finetune": {"postgres-password", "redis-password"},
    "worker-evaluate": {"postgres-password", "redis-password"},
}


def test_a_service_has_only_the_secrets_it_needs_and_only_init_can_change_them() -> None:
    for name, service in services().items():
        mounts = [mount for mount in service["volumes"] if mount.split(":")[0] in SECRETS["init"]]
        assert {mount.split(":")[0] for mount in mounts} == SECRETS[name]
        assert name == "init" or all(mount.endswith(":ro") for mount in mounts)


def test_no_password_stands_in_the_environment() -> None:
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or name.endswith("_FILE")
            if credentials := re.search(r"://[^@/]*:(.+)@", value or ""):
                assert re.fullmatch(r"\{/secrets/[\w/]+\}", credentials[1])


def test_every_service_is_confined() -> None:
    for name, service in {**services(), **monitoring()}.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["pids_limit"]
        assert service["mem_limit"]


def monitoring() -> dict[str, dict[str, Any]]:
    """What the monitoring file adds."""
    added: dict[str, dict[str, Any]] = load(MONITORING)["services"]
    return {name: service for name, service in added.items() if name not in services()}


def test_monitoring_is_published_to_this_machine_only_and_stays_up() -> None:
    published = {name: service["ports"] for name, service in monitoring().items()}
    assert published == {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}
    for service in monitoring().values():
        assert service["restart"] == "unless-stopped"
        assert has_health_check(service)
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", service["image"])


def test_monitoring_mounts_what_is_there_and_declares_its_volumes() -> None:
    declared = load(MONITORING)["volumes"].keys()
    for service in monitoring().values():
        for mount in service["volumes"]:
            source, *_ = mount.split(":")
            if source.startswith("./"):
                assert (REPOSITORY / source).is_dir()
                assert mount.endswith(":ro")
            else:
                assert source in declared


def test_workers_offer_metrics_where_prometheus_looks_for_them() -> None:
    jobs = yaml.safe_load(text("docker/monitoring/prometheus.yml"))["scrape_configs"]
    looked_for = {
        name: each["dns_sd_configs"][0]["port"]
        for each in jobs
        for name in each["dns_sd_configs"][0]["names"]
    }
    added = load(MONITORING)["services"]
    assert looked_for.pop("api") == int(services()["api"]["environment"]["SDS_CLIP_PORT"])
    assert looked_for == {
        name: int(added[name]["environment"]["SDS_CLIP_METRICS_PORT"])
        for name in added
        if name.startswith("worker-")
    }


def test_worker_slots_differ_in_their_queue_alone() -> None:
    finetune, evaluate = (services()[f"worker-{queue}"] for queue in ("finetune", "evaluate"))
    assert finetune.pop("command") == ["sds-clip", "worker", "--queue", "finetune"]
    assert evaluate.pop("command") == ["sds-clip", "worker", "--queue", "evaluate"]
    assert finetune.pop("build")
    assert finetune == evaluate


def test_every_image_of_ours_is_built_by_one_service() -> None:
    for file in (BASE, GPU):
        builders = [service["image"] for service in load(file)["services"].values() if "build" in service]
        named = {
            service["image"] for service in load(file)["services"].values() if "sds-clip" in service["image"]
        }
        assert sorted(builders) == sorted(named)


FIXED = {"database_url", "broker_url", "data_dir", "dataset_roots", "metrics_host"}
OF_THE_SERVICE = {"host", "port", "keys_file", "state_dir"}


def settings() -> set[str]:
    of_workers = {field.name for field in fields(WorkerConfig)} | set(OWN_VARIABLES.values())
    return Settings.model_fields.keys() | of_workers - {"queue", "limits", "retention", "nice"} - RETIRED


def variables_of(settings: set[str]) -> set[str]:
    return {f"SDS_CLIP_{setting.upper()}" for setting in settings}


@pytest.mark.parametrize("name", ["api", "worker-finetune", "worker-evaluate"])
def test_every_setting_of_the_env_file_reaches_the_containers_but_those_that_they_fix(name: str) -> None:
    service = services()[name]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    fixed = FIXED | OF_THE_SERVICE if name == "api" else FIXED
    assert fixed <= settings()
    assert service["environment"].keys() == {*variables_of(fixed), "HF_HOME"}


def test_whatever_runs_the_service_or_a_worker_reads_the_env_file() -> None:
    for file in (BASE, GPU, MONITORING):
        for name, service in load(file)["services"].items():
            ours = service.get("command", [""])[0] == "sds-clip"
            assert ("env_file" in service) == ours, name


def test_env_example_names_every_variable_and_no_unknown_setting() -> None:
    named = set(re.findall(r"^# (\w+)=", text(".env.example"), re.MULTILINE))
    ours = {name for name in named if name.startswith("SDS_CLIP_")}
    assert named - ours == variables(BASE) | variables(GPU) | variables(MONITORING)
    assert ours <= variables_of(settings() - FIXED - OF_THE_SERVICE)


def test_downloads_are_kept_in_a_volume() -> None:
    for name in ("api", "worker-finetune", "worker-evaluate"):
        assert services()[name]["environment"]["HF_HOME"].startswith("/weights/")
        assert "weights:/weights" in services()[name]["volumes"]


def test_gpu_file_gives_workers_a_gpu_and_its_torch_and_the_api_by_choice() -> None:
    on_gpu: dict[str, Any] = load(GPU)["services"]
    for service in on_gpu.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    shares = [float(service["environment"]["SDS_CLIP_GPU_MEMORY_SHARE"]) for service in on_gpu.values()]
    assert sum(shares) < 0.9
    torch = {
        service["image"]: (service["build"]["args"]["TORCH"], service["build"]["args"]["TORCH_INDEX_URL"])
        for service in on_gpu.values()
        if "build" in service
    }
    assert torch["sds-clip-api:gpu"] == ("torch", "https://download.pytorch.org/whl/cpu")
    assert torch[on_gpu["worker-finetune"]["image"]] == ("torch-cuda", "https://pypi.org/simple")
    assert on_gpu["worker-finetune"]["image"] == on_gpu["worker-evaluate"]["image"]
    # An image of another torch has another name: one tag would be built twice, and differ.
    others = {service["image"] for service in services().values()}
    assert others.isdisjoint(service["image"] for service in on_gpu.values())

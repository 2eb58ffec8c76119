"""The Kubernetes manifests of the docs: their schema, and what they must have in common with the code and compose."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sds_clip.app.edge.auth import declared
from sds_clip.app.main import api
from sds_clip.app.settings import Settings
from sds_clip.worker.config import WorkerConfig
from tests.docker.compose import seconds, services
from tests.docs.commands import DOCS
from tests.docs.test_commands import parse

FOLDER = DOCS / "how-to" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
IN_COMPOSE = ("api", "worker-finetune", "worker-evaluate", "postgres", "redis")
HAS_SCHEMAS = importlib.util.find_spec("kubernetes_validate") is not None
OLDEST, NEWEST = "1.29", "1.34"
WORKER_CHECK = ["python", "/docker/entrypoint.py", "python", "/docker/worker_health.py"]


def resources(*kinds: str) -> list[dict[str, Any]]:
    found = [each for file in FILES for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return [each for each in found if not kinds or each["kind"] in kinds]


def named(name: str, *kinds: str) -> dict[str, Any]:
    (found,) = (each for each in resources(*kinds) if each["metadata"]["name"] == name)
    return found


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = named(name, "Deployment", "StatefulSet")["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def environment() -> dict[str, str]:
    data: dict[str, str] = named("sds-clip", "ConfigMap")["data"]
    return data


@pytest.mark.skipif(
    not HAS_SCHEMAS,
    reason="kubernetes-validate, which carries the schemas, is not installed: make .venv/.installed",
)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_manifests_keep_the_schema_of_kubernetes(file: Path, version: str) -> None:
    import kubernetes_validate

    for resource in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        kubernetes_validate.validate(resource, version, strict=True)


def test_everything_is_in_the_namespace_which_asks_for_restricted_pods() -> None:
    (namespace,) = resources("Namespace")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    others = [each for each in resources() if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("name", IN_COMPOSE)
def test_pods_are_confined_as_restricted_asks(name: str) -> None:
    account, own = pod(name)["securityContext"], container(name)["securityContext"]
    assert account["runAsNonRoot"]
    assert account["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    # Otherwise a Service called sds-clip would set SDS_CLIP_PORT.
    assert pod(name)["enableServiceLinks"] is False


def places(name: str, *, writable: bool) -> set[str]:
    mounts = container(name)["volumeMounts"]
    return {mount["mountPath"] for mount in mounts if mount.get("readOnly", False) is not writable}


def places_in_compose(name: str, *, writable: bool) -> set[str]:
    service = services()[name]
    mounts = [mount.split(":") for mount in service["volumes"]]
    found = {parts[1] for parts in mounts if (parts[-1] != "ro") is writable}
    if writable:
        found |= {place.partition(":")[0] for place in service["tmpfs"]}
    return found | ({"/dev/shm"} if writable and "shm_size" in service else set())


@pytest.mark.parametrize("name", IN_COMPOSE)
def test_a_pod_writes_and_reads_where_its_container_of_compose_does(name: str) -> None:
    for writable in (True, False):
        assert places(name, writable=writable) == places_in_compose(name, writable=writable)


@pytest.mark.parametrize("name", IN_COMPOSE)
def test_a_pod_runs_as_its_container_of_compose_does(name: str) -> None:
    service, found = services()[name], container(name)
    if "args" in found:
        assert found["args"] == service["command"]
    if "user" in service:
        account = pod(name)["securityContext"]
        assert service["user"] == f"{account['runAsUser']}:{account['runAsGroup']}"
        assert found["image"] == service["image"].partition("@")[0]
    else:
        assert f"/{service['image']}:" in found["image"]
    assert found["resources"]["limits"]["memory"].lower() == f"{service['mem_limit']}i"
    grace_s = pod(name)["terminationGracePeriodSeconds"]
    pre_stop = found.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    assert grace_s - int(pre_stop[-1]) == seconds(service["stop_grace_period"])


def test_every_mount_has_its_volume_and_every_volume_its_claim_or_secret() -> None:
    claims = {each["metadata"]["name"] for each in resources("PersistentVolumeClaim")}
    for name in IN_COMPOSE:
        volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
        own = named(name, "Deployment", "StatefulSet")["spec"].get("volumeClaimTemplates", [])
        mounted = {mount["name"] for mount in container(name)["volumeMounts"]}
        assert mounted == volumes.keys() | {claim["metadata"]["name"] for claim in own}
        claimed = {
            each["persistentVolumeClaim"]["claimName"]
            for each in volumes.values()
            if "persistentVolumeClaim" in each
        }
        assert claimed <= claims
    for claim in resources("PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_settings_are_there_and_as_in_compose() -> None:
    given = {**environment(), **{each["name"]: each["value"] for each in container("api")["env"]}}
    known = {*Settings.model_fields, *WorkerConfig.__dataclass_fields__}
    assert {name.removeprefix("SDS_CLIP_").lower() for name in given if name != "HF_HOME"} <= known
    in_compose = services()["api"]["environment"]
    own = {"SDS_CLIP_METRICS_PORT", "SDS_CLIP_TRUSTED_PROXIES"}
    assert {name: value for name, value in given.items() if name not in own} == {
        name: value for name, value in in_compose.items() if value is not None
    }
    Settings(trusted_proxies=given["SDS_CLIP_TRUSTED_PROXIES"])


def test_commands_are_those_of_the_program() -> None:
    for name in ("api", "worker-finetune", "worker-evaluate"):
        program, *arguments = container(name)["args"]
        assert program == "sds-clip"
        parse(arguments)


def test_probes_ask_routes_and_ports_that_are_there() -> None:
    paths = {path for path, _, _ in declared(api())}
    found = container("api")
    port = int(next(each["value"] for each in found["env"] if each["name"] == "SDS_CLIP_PORT"))
    assert found["ports"] == [{"name": "http", "containerPort": port}]
    asked = {kind: found[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {each["path"] for each in asked.values()} <= paths
    assert {each["port"] for each in asked.values()} == {"http"}
    assert (asked["readiness"]["path"], asked["liveness"]["path"]) == ("/ready", "/health")
    for name in ("worker-finetune", "worker-evaluate"):
        assert [each["containerPort"] for each in container(name)["ports"]] == [
            int(environment()["SDS_CLIP_METRICS_PORT"])
        ]
        assert container(name)["readinessProbe"]["exec"]["command"] == WORKER_CHECK
        # It would restart a worker whose job goes on while the database is away.
        assert "livenessProbe" not in container(name)


def test_services_and_policies_select_pods_that_are_there_and_open_every_port_that_is_needed() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"] for each in resources("Deployment", "StatefulSet")
    ]

    def selected(wanted: dict[str, str]) -> bool:
        return any(wanted.items() <= each.items() for each in labels)

    ports = {}
    for service in resources("Service"):
        assert selected(service["spec"]["selector"])
        ports[service["metadata"]["name"]] = service["spec"]["ports"][0]["port"]
    for budget in resources("PodDisruptionBudget"):
        assert selected(budget["spec"]["selector"]["matchLabels"])
    opened: dict[str, set[int]] = {}
    for policy in resources("NetworkPolicy"):
        wanted = policy["spec"]["podSelector"].get("matchLabels", {})
        assert selected(wanted)
        for rule in policy["spec"].get("ingress", []):
            opened.setdefault("".join(wanted.values()), set()).update(each["port"] for each in rule["ports"])
    assert opened.pop("worker") == {int(environment()["SDS_CLIP_METRICS_PORT"])}
    assert opened == {name: {port} for name, port in ports.items()}
    hosts = re.findall(
        r"@(\w+):(\d+)", environment()["SDS_CLIP_DATABASE_URL"] + environment()["SDS_CLIP_BROKER_URL"]
    )
    assert {name: int(port) for name, port in hosts} == {name: ports[name] for name in ("postgres", "redis")}

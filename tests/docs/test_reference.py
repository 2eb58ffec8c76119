"""The pages of the reference name all that the code has."""

import re

import pytest

from sds_clip import AsyncClient, Client, Job
from sds_clip.app.main import api
from sds_clip.app.retired import RETIRED
from sds_clip.app.settings import Settings
from sds_clip.worker.config import WorkerConfig
from tools.reference import cli, client, routes, settings


@pytest.fixture(scope="module")
def http() -> str:
    return routes.page()


def test_every_setting_of_the_service_and_of_workers_is_there_once() -> None:
    named = re.findall(r"^\| `SDS_CLIP_(\w+)`", settings.page(), re.MULTILINE)
    assert len(named) == len(set(named))
    own = {"worker_device", "worker_threads", "worker_nice"}
    workers = WorkerConfig.__dataclass_fields__.keys() - {"queue", "limits", "nice", "retention"} - RETIRED
    assert {name.lower() for name in named} == Settings.model_fields.keys() | workers | own | {
        "url",
        "api_key",
    }


def test_a_setting_has_its_type_default_unit_and_meaning() -> None:
    page = settings.page()
    assert "| `SDS_CLIP_PORT` | integer, ≥ 0, ≤ 65535 | `8000` |" in page
    assert "| `SDS_CLIP_DISK_RESERVE_BYTES` | integer, ≥ 0 | `2147483648` (2 GiB) | bytes | " in page
    for name in (
        "SDS_CLIP_LEASE_TTL_S",
        "SDS_CLIP_WORKER_NICE",
    ):  # told by the docstrings below the fields
        assert re.search(rf"^\| `{name}` \|.*\| \w[^|]+ \|$", page, re.MULTILINE)


def test_a_setting_stands_with_those_who_read_it() -> None:
    section = {
        name: title
        for title, text in re.findall(r"^## (.*)\n([^#]*)", settings.page(), re.MULTILINE)
        for name in re.findall(r"`SDS_CLIP_(\w+)` \|", text)
    }
    assert section["DEVICE"] == section["DISK_RESERVE_BYTES"] == "Service and workers"
    assert section["THREADS"] == section["PORT"] == "Service"
    assert section["WORKER_THREADS"] == section["WORKER_DEVICE"] == section["LEASE_TTL_S"] == "Workers"


def test_every_command_with_its_options_and_examples_is_there() -> None:
    page = cli.page()
    commands = [context.command_path for context in cli.contexts()]
    assert "sds-clip jobs list" in commands
    assert re.findall("^## (.*)$", page, re.MULTILINE) == commands
    for words in ("--model REF", "--batch-size", "sds-clip serve --model ViT-B-32/openai"):
        assert words in page


def test_every_route_with_its_scope_and_codes_is_there(http: str) -> None:
    for path, operations in api().openapi()["paths"].items():
        for method in operations:
            assert f"### {method.upper()} {path}\n" in http
    match, deletion, health = (
        http.split(f"### {name}\n")[1].split("\n### ")[0]
        for name in ("POST /match", "DELETE /models/{version}", "GET /health")
    )
    assert "Scope: `infer`" in match
    assert "`unsupported_media_type`" in match
    assert '"texts"' in match
    assert "Scope: `train` or `admin`" in deletion
    assert "Scope: none" in health


def test_links_to_schemas_lead_to_their_headings(http: str) -> None:
    headings = {heading.lower() for heading in re.findall("^### (.*)$", http, re.MULTILINE)}
    linked = set(re.findall(r"\]\(#([^)]+)\)", http))
    assert "matchresponse" in headings
    assert linked <= headings


def test_every_public_method_of_the_client_is_there_with_its_signature() -> None:
    page = client.page()
    for kind in (Client, AsyncClient, Job):
        for name, _ in client.members(kind):
            assert f"### {kind.__name__}.{name}\n" in page
    assert "### JobFailed\n" in page
    assert "async picture(path: str, *, max_side: int | None = None) -> bytes" in page


def test_every_keyword_argument_of_the_client_stands_with_its_type() -> None:
    section = client.page().split("### AsyncClient.match\n")[1].split("###")[0]
    assert section.count("async match(\n    images: Iterable[ImageLike],\n") == 2
    assert "    model: str | None = None,\n) -> schemas.MatchResponse\n" in section
    assert "    models: Sequence[str],\n) -> schemas.MatchComparison\n" in section
    assert "**" not in section

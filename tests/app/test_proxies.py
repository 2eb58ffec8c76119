"""Whose word about the caller's address is taken, by a server in a process of its own."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from sds_clip.app.settings import Settings
from tests.app.serverside import RunningServer, running_server
from tests.worker.waiting import until

CLAIM = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def server(small_reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    trusted = {"SDS_CLIP_TRUSTED_PROXIES": "127.0.0.8/30, 127.0.0.3"}
    with running_server(tmp_path_factory.mktemp("server"), "--model", small_reference, **trusted) as server:
        yield server


def logged(server: RunningServer, local_address: str, name: str) -> Any:
    """The address that the service takes a caller to have who connects from one and claims another."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=local_address)) as client:
        client.get(f"{server.url}/models", headers={**CLAIM, "X-Request-Id": name}).raise_for_status()

    def line() -> dict[str, Any] | None:
        lines = map(json.loads, server.log.read_text().splitlines())
        return next((line for line in lines if line.get("request_id") == name), None)

    until(line)
    found = line()
    assert found is not None
    return found["client"]


@pytest.mark.parametrize("proxy", ["127.0.0.3", "127.0.0.9"])
def test_last_address_that_a_trusted_proxy_names_is_the_caller_s(server: RunningServer, proxy: str) -> None:
    assert logged(server, proxy, proxy) == "203.0.113.9"


@pytest.mark.parametrize("caller", ["127.0.0.1", "127.0.0.4", "127.0.0.12"])
def test_claim_of_anybody_else_is_ignored(server: RunningServer, caller: str) -> None:
    assert logged(server, caller, caller) == caller


def test_only_this_machine_is_trusted_by_default() -> None:
    assert [str(network) for network in Settings().trusted_proxies] == ["127.0.0.1/32", "::1/128"]


def test_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(trusted_proxies="nginx")

"""Clients that generators make from the API's description, against a running service: `make test-clients`."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.clients.environments import python_with
from tests.clients.generated import GENERATORS, TEXTS, URI

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("generator", GENERATORS)
def test_generated_client_imports_in_whole_and_matches(
    generator: str, service: tuple[str, str], tmp_path: Path
) -> None:
    url, key = service
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{url}/openapi.json").raise_for_status().content)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = Path(__file__).parent / "generated.py"
    done = subprocess.run(
        [python_with("generators.txt"), script, generator, tmp_path, url, key],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])

    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{url}/match", json={"images": [URI], "texts": TEXTS}, headers=headers)
    expected = answer.raise_for_status().json()["results"][0]["scores"]
    for scores in said["scores"]:
        assert scores == pytest.approx(expected, abs=1e-6)
    print(f"| {generator} {said['version']} | {said['modules']} modules |")

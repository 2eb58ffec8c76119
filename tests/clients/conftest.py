from collections.abc import Iterator

import pytest

from sds_clip.app.keys import create_key
from tests.app.serverside import running_server


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a service with API keys, and a key."""
    folder = tmp_path_factory.mktemp("service")
    key = create_key(folder / "keys.json", "app", ["infer"])
    with running_server(folder, SDS_CLIP_KEYS_FILE=str(folder / "keys.json")) as server:
        yield server.url, key

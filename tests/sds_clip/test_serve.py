from pathlib import Path

import httpx

from tests.app.serverside import running_server


def test_the_options_reach_the_service_and_sigterm_ends_it(checkpoint: Path, tmp_path: Path) -> None:
    options = ["--model", f"local-dir:{checkpoint}", "--precision", "float32", "--threads", "1"]
    with running_server(tmp_path, *options) as server:
        (model,) = httpx.get(f"{server.url}/models", timeout=30).json()["models"]
        assert (model["reference"], model["precision"]) == (f"local-dir:{checkpoint}", "float32")
        server.terminate()
        assert server.process.wait(timeout=60) == 0

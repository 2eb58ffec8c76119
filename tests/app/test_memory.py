"""The memory of a real server process: under the worst images, and when there is none left."""

import io
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx
import PIL.Image
import pytest

from bench.decode_memory import MIB, measure, worst_images
from tests.app.conftest import base64_of, png
from tests.app.serverside import RunningServer, running_server

SIDE = 3000


def test_worst_images_at_16_threads_stay_within_the_budget_and_leave_nothing(
    small_reference: str, tmp_path: Path
) -> None:
    kinds = ("JPEG, progressive CMYK", "WebP, animated")
    images = [data for name, data in worst_images(SIDE**2) if name in kinds]
    memory = measure(images, threads=16, budget_bytes=300 * MIB, model=small_reference, cache=tmp_path)
    assert memory.answers == {200: len(kinds) * 17}
    assert memory.peak <= memory.bound
    assert memory.after <= 1.1 * memory.base


@pytest.fixture
def server(small_reference: str, tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path, "--model", small_reference, SDS_CLIP_DECODE_THREADS="1") as server:
        yield server


@pytest.mark.parametrize("path", ["/match", "/classify", "/embed"])
def test_lack_of_memory_is_an_answer_and_the_server_lives(server: RunningServer, path: str) -> None:
    body = {"/match": {"texts": ["a"]}, "/classify": {"labels": ["a", "b"]}, "/embed": {}}[path]
    small = {"images": [base64_of(png())], **body}
    file = io.BytesIO()
    PIL.Image.new("RGB", (8000, 7000)).save(file, "PNG", compress_level=1)  # 224 MB in RGB
    large = {"images": [base64_of(file.getvalue())], **body}
    with httpx.Client(base_url=server.url, timeout=300) as client:
        assert client.post(path, json=small).status_code == 200
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        held = int(dict(line.split(":", 1) for line in status.splitlines())["VmSize"].split()[0]) * 1024
        unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_AS, (held + 150 * MIB, -1))
        assert unlimited
        refused = client.post(path, json=large)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "out_of_memory")
        assert int(refused.headers["Retry-After"]) > 0
        assert client.post(path, json=small).status_code == 200
        assert client.get("/metrics").text.count("sds_clip_decode_bytes 0.0") == 1

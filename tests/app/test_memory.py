"""The memory of a real server process: under the worst images, and when there is none left."""

import io
import resource
from pathlib import Path

import httpx
import PIL.Image

from bench.decode_memory import MIB, measure, worst_images
from tests.app.conftest import base64_of, png
from tests.app.serverside import running_server

SIDE = 3000


def test_worst_images_at_16_threads_stay_within_the_budget_and_leave_nothing(
    small_reference: str, tmp_path: Path
) -> None:
    kinds = ("JPEG, progressive CMYK", "WebP, animated")
    images = [data for name, data in worst_images(SIDE**2) if name in kinds]
    memory = measure(images, threads=16, budget_bytes=300 * MIB, model=small_reference, cache=tmp_path)
    assert memory.answers == {200: len(kinds) * 17}
    assert memory.peak <= memory.bound
    assert memory.after <= memory.rest


def test_lack_of_memory_is_an_answer_and_the_server_lives(small_reference: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8000, 7000)).save(file, "PNG", compress_level=1)  # 224 MB in RGB
    bodies = {"/match": {"texts": ["a"]}, "/classify": {"labels": ["a", "b"]}, "/embed": {}}
    options = ("--model", small_reference)
    with (
        running_server(tmp_path, *options) as server,
        httpx.Client(base_url=server.url, timeout=300) as client,
    ):
        for path, body in bodies.items():
            assert client.post(path, json={"images": [base64_of(png())], **body}).status_code == 200
        held_bytes = _kib(server.process.pid, "VmSize") * 1024
        resource.prlimit(
            server.process.pid, resource.RLIMIT_AS, (held_bytes + 150 * MIB, resource.RLIM_INFINITY)
        )
        for path, body in bodies.items():
            refused = client.post(path, json={"images": [base64_of(file.getvalue())], **body})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "out_of_memory")
            assert int(refused.headers["Retry-After"]) > 0
            assert client.post(path, json={"images": [base64_of(png())], **body}).status_code == 200
        assert "sds_clip_decode_bytes 0.0" in client.get("/metrics").text


def _kib(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[field].split()[0])

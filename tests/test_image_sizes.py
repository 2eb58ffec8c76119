import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools.image_sizes import unpacked_bytes

FILES = {"torch/lib.so": b"\0" * 300_000, "torch/__init__.py": b"import lib\n"}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel whose files are smaller when packed, behind a file that is not."""
    file = tmp_path / "a wheel.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("stored"), bytes(200_000))
        for name, content in FILES.items():
            archive.writestr(name, content)
    return file


@pytest.fixture
def index(wheel: Path) -> Iterator[tuple[str, list[int]]]:
    """A server of the wheel, which answers for its last bytes, and how many were asked for."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (last,) = re.fullmatch(r"bytes=-(\d+)", self.headers["Range"]).groups()  # type: ignore[union-attr]
            asked.append(int(last))
            content = wheel.read_bytes()[-int(last) :]
            self.send_response(206)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a.whl", asked
        server.shutdown()
        thread.join()


def test_unpacked_files_are_counted_though_only_the_end_is_fetched(
    index: tuple[str, list[int]], wheel: Path
) -> None:
    url, asked = index
    assert unpacked_bytes(url) == 200_000 + sum(map(len, FILES.values()))
    assert sum(asked) < wheel.stat().st_size


def test_a_long_list_of_files_is_fetched_again(index: tuple[str, list[int]], wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        for number in range(2000):
            archive.writestr(f"torch/include/{number:050}.h", b"12345")
    url, asked = index
    assert unpacked_bytes(url) == 200_000 + sum(map(len, FILES.values())) + 2000 * 5
    assert len(asked) == 2


def test_a_wheel_on_this_machine_is_read_in_place(wheel: Path) -> None:
    assert unpacked_bytes(wheel.as_uri()) == 200_000 + sum(map(len, FILES.values()))

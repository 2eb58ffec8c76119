"""A real nginx with the file of the docs, as a process of its own."""

import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.app.serverside import free_port
from tests.docs.commands import DOCS
from tests.worker.waiting import until

CONFIGURATION = DOCS / "how-to" / "nginx" / "sds-clip.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None,
    reason="nginx or openssl is not installed: apt install nginx-light openssl",
)
MAIN = """\
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/sds-clip.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    url: str
    port: int
    trust: ssl.SSLContext
    """What verifies the proxy's certificate."""


@contextlib.contextmanager
def running_nginx(folder: Path, upstreams: Sequence[str]) -> Iterator[Proxy]:
    """nginx in front of services, given by HOST:PORT. Only what a reader of the docs changes is changed in its file."""
    certificate, port = _certificate(folder), free_port()
    text = CONFIGURATION.read_text(encoding="utf-8")
    letsencrypt = "/etc/letsencrypt/live/clip.example.org"
    for old, new in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        f"{letsencrypt}/fullchain.pem": str(certificate),
        f"{letsencrypt}/privkey.pem": str(certificate),
        "server 127.0.0.1:8000 max_fails=0;": "".join(f"server {each} max_fails=0;\n" for each in upstreams),
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "sds-clip.conf").write_text(text)
    # As root, nginx would change to a user who may not enter the folders of the tests.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(user=user, folder=folder))
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or (folder / "nginx.pid").exists())
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield Proxy(f"https://127.0.0.1:{port}", port, ssl.create_default_context(cafile=str(certificate)))
    finally:
        process.terminate()
        process.wait()


def _certificate(folder: Path) -> Path:
    """One file with a key and its certificate, for 127.0.0.1."""
    key, certificate, both = (folder / name for name in ("key.pem", "certificate.pem", "both.pem"))
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=clip.example.org"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made.split(), *names], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both

"""Where the service of the embedded run will listen, and whether it is there."""

import contextlib
import socket
import time

import httpx

from sds_clip.errors import CliError

_FREED_WITHIN_S = 5.0
"""A service that was left by a crash ends about now."""
_ASK_TIMEOUT_S = 5.0
_CANNOT_LOAD = ("version_damaged", "model_not_ready")
"""Codes of a service that works and does not have the weights that were promoted."""


class Address:
    """A host and a port that is free; port 0 is any free one.

    Raises CliError for one that is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = _free_port(host, port)
        self.problem: str | None = None
        """Why a service that is there does not serve the default model."""

    @property
    def url(self) -> str:
        """For whoever is on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def is_there(self) -> bool:
        """Whether the service answers, with a forward pass or with why the promoted version cannot be loaded.

        That takes a rollback or a job to mend, and so the workers. `problem` then has the reason.
        """
        self.problem = None
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            answer = httpx.get(f"{self.url}/ready", timeout=_ASK_TIMEOUT_S, trust_env=False)
            if answer.is_success:
                return True
            error = answer.json()["error"]
            if error["code"] in _CANNOT_LOAD:
                self.problem = error["message"]
                return True
        return False


def _free_port(host: str, port: int) -> int:
    deadline = time.monotonic() + _FREED_WITHIN_S
    while True:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return int(probe.getsockname()[1])
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > deadline:
                raise CliError(
                    f"{host} port {port} cannot be listened on ({error.strerror}); stop what does, or give "
                    "another --port."
                ) from error
            time.sleep(0.2)

"""Requests to a running service, one after the other, while something else happens there."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sds_clip import Client, ClientError

ANSWERS = 20
"""So many show that a version answers."""
Ask = Callable[[Client, int], str]
"""Sends a request by its number, and returns the version that answered."""


def asks(image: Path, captions: Sequence[str]) -> Ask:
    """Requests to /match and /classify for a picture."""

    def ask(client: Client, number: int) -> str:
        if number % 4 == 0:
            return str(client.classify([image], ["a yellow star", "a cyan circle"])["model"]["version"])
        return str(client.match([image], [*captions, f"picture {number}"])["model"]["version"])

    return ask


class Load:
    """Asks in a thread for each of `pauses_s`, without retries, until the block ends, and counts the results."""

    def __init__(
        self, url: str | None, ask: Ask, *, key: str | None = None, pauses_s: Sequence[float] = (0.1,)
    ) -> None:
        self._url, self._ask, self._key = url, ask, key
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[pause_s]) for pause_s in pauses_s]
        self.answered: Counter[str] = Counter()
        """Requests by the version that answered."""
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: str) -> None:
        """Wait until a version has answered some requests, or one has failed."""
        while self.answered[version] < ANSWERS and not self.failures:
            time.sleep(0.1)

    def _run(self, pause_s: float) -> None:
        number = 0
        with Client(self._url, api_key=self._key, max_attempts=1) as client:
            while not self._stopping.wait(pause_s):
                number += 1
                try:
                    self.answered[self._ask(client, number)] += 1
                except ClientError as error:
                    self.failures.append(str(error))

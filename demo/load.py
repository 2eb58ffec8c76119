"""Requests to a running service, one after the other, while something else happens there."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sds_clip import Client, ClientError

ANSWERS = 20
"""So many show that a version answers."""


class Load:
    """Sends requests to /match and /classify continuously, without retries, and counts the results."""

    def __init__(self, url: str | None, image: Path, captions: Sequence[str]) -> None:
        self._url, self._image, self._captions = url, image, captions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.answered: Counter[str] = Counter()
        """Requests by the version that answered."""
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for(self, version: str) -> None:
        """Wait until a version has answered some requests, or one has failed."""
        while self.answered[version] < ANSWERS and not self.failures:
            time.sleep(0.1)

    def _run(self) -> None:
        number = 0
        with Client(self._url, max_attempts=1) as client:
            while not self._stopping.wait(0.1):
                number += 1
                try:
                    if number % 4 == 0:
                        model = client.classify([self._image], ["a yellow star", "a cyan circle"])["model"]
                    else:
                        model = client.match([self._image], [*self._captions, f"picture {number}"])["model"]
                    self.answered[model["version"]] += 1
                except ClientError as error:
                    self.failures.append(str(error))

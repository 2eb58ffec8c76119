"""A caller who asks the service all the time, and writes down when it did not answer."""

import threading
import time
from dataclasses import dataclass

import httpx

EVERY_S = 0.1


@dataclass(frozen=True)
class Refusal:
    """A request that was not answered with 200."""

    at: float
    reason: str


class Caller:
    """Asks in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="caller", daemon=True)
        self.refusals: list[Refusal] = []
        self.asked = 0
        self._thread.start()

    def refused_since(self, at: float) -> list[Refusal]:
        """What was not answered."""
        return [refusal for refusal in self.refusals if refusal.at >= at]

    def close(self) -> None:
        """Ask no more."""
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._done.wait(EVERY_S):
                at = time.time()
                self.asked += 1
                try:
                    answer = client.post("/embed", json={"texts": ["a blue square"]})
                    reason = "" if answer.is_success else answer.text
                except httpx.TransportError as error:
                    reason = repr(error)
                if reason:
                    self.refusals.append(Refusal(at, reason))

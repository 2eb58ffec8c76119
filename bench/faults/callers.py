"""Clients that call every serving process continuously and record refusals and wrong answers."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import torch
from torch import Tensor

from app.store.records import Promotion
from tests.app.serving.swapping import MATCH

ASK_EVERY_S = 0.1
MATCH_EVERY_S = 0.2
TOLERANCE = 1e-4


class Asking:
    """Asks a service every so often in a thread, until it is closed."""

    def __init__(self, url: str, every_s: float, ask: Callable[[httpx.Client], None]) -> None:
        self._url, self._every_s, self._ask = url, every_s, ask
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._done.wait(self._every_s):
                self._ask(client)


@dataclass(frozen=True)
class Refusal:
    """A request not answered with 200."""

    at: float
    reason: str


class Caller:
    """Sends /embed requests."""

    def __init__(self, url: str) -> None:
        self.refusals: list[Refusal] = []
        self.close = Asking(url, ASK_EVERY_S, self._ask).close

    def refused_since(self, at: float) -> list[Refusal]:
        return [refusal for refusal in self.refusals if refusal.at >= at]

    def _ask(self, client: httpx.Client) -> None:
        at = time.time()
        try:
            answer = client.post("/embed", json={"texts": ["a blue square"]})
            reason = "" if answer.is_success else answer.text
        except httpx.TransportError as error:
            reason = repr(error)
        if reason:
            self.refusals.append(Refusal(at, reason))


@dataclass(frozen=True)
class Answer:
    """A process's answer to a request for `default`."""

    process: str
    asked_at: float
    answered_at: float
    version: str
    generation: int
    scores: Tensor


class Matcher:
    """Sends /match requests to one process. Refusals do not matter here."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._answers: list[Answer] = []
        self.close = Asking(url, MATCH_EVERY_S, self._ask).close

    def taken(self) -> list[Answer]:
        """Take the answers since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def _ask(self, client: httpx.Client) -> None:
        at = time.time()
        with contextlib.suppress(httpx.TransportError):
            answer = client.post("/match", json={**MATCH, "model": "default"})
            if answer.is_success:
                content = answer.json()
                scores = torch.tensor([result["scores"] for result in content["results"]])
                model = content["model"]
                self._answers.append(
                    Answer(self._url, at, time.time(), model["version"], model["generation"], scores)
                )


def what_is_wrong(
    answer: Answer,
    moves: Mapping[int, Promotion],
    scores_of: Callable[[str], Tensor],
    *,
    any_age: bool = False,
) -> str | None:
    """Why an answer is wrong; None if it is right.

    Right is the promoted version, or the one before until the new one is loaded. `moves` are the alias's
    promotions by generation. With `any_age` any earlier promoted version is right too: under many faults at
    once a service may miss several moves in a row.
    """
    told = f"{answer.process} answered with {answer.version[:12]} as generation {answer.generation}"
    move = moves.get(answer.generation)
    if move is None or move.to_version != answer.version or move.at > answer.answered_at:
        return f"{told}, which was never promoted so"
    newer = moves.get(answer.generation + 2)
    if not any_age and newer is not None and newer.at < answer.asked_at:
        return f"{told}, when generation {newer.generation} was promoted"
    if (answer.scores - scores_of(answer.version)).abs().max() > TOLERANCE:
        return f"{told}, whose scores are others"
    return None

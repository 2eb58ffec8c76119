"""A client that calls a serving process continuously and records refusals and answers."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import torch
from torch import Tensor

from sds_clip.app.store.records import Promotion
from tests.app.serving.swapping import MATCH

ASK_EVERY_S = 0.1
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Refusal:
    """A request not answered with 200."""

    at: float
    reason: str


@dataclass(frozen=True)
class Answer:
    """A process's answer to a request for `default`."""

    process: str
    asked_at: float
    answered_at: float
    version: str
    generation: int
    scores: Tensor


class Caller:
    """Sends /match requests for `default` to one process in a thread, until it is closed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._refusals: list[Refusal] = []
        self._answers: list[Answer] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caller", daemon=True)
        self._thread.start()

    def refused_since(self, at: float) -> list[Refusal]:
        return [refusal for refusal in self._refusals if refusal.at >= at]

    def taken(self) -> list[Answer]:
        """Take the answers since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._done.wait(ASK_EVERY_S):
                at = time.time()
                try:
                    answer = client.post("/match", json={**MATCH, "model": "default"})
                except httpx.TransportError as error:
                    self._refusals.append(Refusal(at, repr(error)))
                    continue
                if not answer.is_success:
                    self._refusals.append(Refusal(at, answer.text))
                    continue
                model, results = answer.json()["model"], answer.json()["results"]
                scores = torch.tensor([result["scores"] for result in results])
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

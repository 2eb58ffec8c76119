"""Joins several responses into one."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from sds_clip.client.errors import ClientError

Json: TypeAlias = dict[str, Any]


class Part(NamedTuple):
    """A response, and the overall indices of its first image and first text."""

    image: int
    text: int
    answer: Json


def of_same_models(parts: Sequence[Part]) -> bool:
    """Whether each model that answered is the same in all parts. One that could not answer is none."""
    answers = [part.answer.get("answers", [part.answer]) for part in parts]
    return all(
        all(model == models[0] for model in models)
        for of_name in zip(*answers, strict=True)
        if (models := [each["model"] for each in of_name if "model" in each])
    )


def of_each_model(join: Callable[[Sequence[Part]], Json], parts: Sequence[Part]) -> Json:
    """Join the answers, or of a comparison those of each model. A model that could not answer once has its error."""
    if "answers" not in parts[0].answer:
        return join(parts)
    answers = []
    for number in range(len(parts[0].answer["answers"])):
        own = [part._replace(answer=part.answer["answers"][number]) for part in parts]
        failed = [part.answer for part in own if "error" in part.answer]
        answers.append(failed[0] if failed else join(own))
    return {"answers": answers}


def joined(parts: Sequence[Part]) -> Json:
    """Concatenate the results."""
    results = [_moved(result, part.image + part.text) for part in parts for result in part.answer["results"]]
    return {**parts[0].answer, "results": results}


def joined_match(texts: Sequence[str], parts: Sequence[Part]) -> Json:
    """Join the scores over all `texts`, and compute the probabilities again."""
    rows: dict[int, Json] = {}
    for part in parts:
        for result in part.answer["results"]:
            moved = _moved(result, part.image)
            row = rows.setdefault(moved["index"], moved)
            if "error" in moved:
                rows[moved["index"]] = moved
            elif row is not moved and "error" not in row:
                row["scores"] = row["scores"] + moved["scores"]
                row["logits"] = row["logits"] + moved["logits"]
    activation = _activation(parts)
    answered = [row for row in rows.values() if "error" not in row]
    for row in answered:
        row["probabilities"] = activation(row["logits"])
        row["best"] = row["scores"].index(max(row["scores"]))
        row["best_text"] = texts[row["best"]]
    answer = {**parts[0].answer, "results": [rows[index] for index in sorted(rows)]}
    if len(rows) > 1:
        columns = [[row["logits"][column] for row in answered] for column in range(len(texts))]
        answer["text_probabilities"] = [activation(column) for column in columns]
    return answer


def _activation(parts: Sequence[Part]) -> Callable[[Sequence[float]], list[float]]:
    """Infer from the parts whether the model uses a softmax or sigmoids. Raises ClientError if both fit."""
    fitting = [
        activation
        for activation in (_softmax, _sigmoids)
        if all(
            math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-9)
            for logits, probabilities in _pairs(parts)
            for one, other in zip(activation(logits), probabilities, strict=True)
        )
    ]
    if len(fitting) == 1 or not any(_pairs(parts)):
        return fitting[0]
    raise ClientError(
        "The answers to this call cannot be joined, because they do not show whether the model uses a softmax or "
        "sigmoids. Send fewer texts and images in one call.",
        code="cannot_join",
        param="texts",
    )


def _pairs(parts: Sequence[Part]) -> Iterator[tuple[list[float], list[float]]]:
    """Yield all rows and columns of logits with their probabilities."""
    for part in parts:
        answered = [result for result in part.answer["results"] if "error" not in result]
        yield from ((result["logits"], result["probabilities"]) for result in answered)
        if answered:
            for column, probabilities in enumerate(part.answer.get("text_probabilities", ())):
                yield [result["logits"][column] for result in answered], probabilities


def _softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits, default=0.0)
    powers = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _sigmoids(logits: Sequence[float]) -> list[float]:
    # Only powers of negative numbers, which cannot overflow.
    powers = [math.exp(-abs(logit)) for logit in logits]
    return [(1 if logit >= 0 else power) / (1 + power) for logit, power in zip(logits, powers, strict=True)]


def _moved(result: Json, by: int) -> Json:
    """Shift a result's index to its overall position."""
    moved = {**result, "index": result["index"] + by}
    if "error" in moved:
        moved["error"] = {**moved["error"], "index": moved["index"]}
    return moved

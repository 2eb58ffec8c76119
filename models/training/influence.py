"""Did the teacher have any influence? Judged at the end of a run, from what it logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from sds_clip.models.training.watcher import Record

# The thresholds of `teacher_had_no_say`.
MIN_GRADIENT_SHARE = 0.05
MIN_RESIDUAL_GAP = 0.01
MIN_CHOICE_GAIN = 0.01
_STANDARD_ERRORS = 2
_ENOUGH_FOR_NOISE = 3  # records, to estimate a standard error from


@dataclass(frozen=True)
class RunWarning:
    """Something that a reader of a run's figures must know."""

    code: str
    message: str
    figures: Mapping[str, float] = field(default_factory=dict)


def influence_figures(records: Sequence[Record]) -> dict[str, float]:
    """Return what `teacher_had_no_say` judges, as means over the second half of the records.

    `teacher_gradient_share`; and, if it was logged, `residual_gap`, by how much the residual grows with the captions of
    other samples, as a share of it. A run without a teacher's loss has neither.
    """
    late = _late(records)
    if not late:
        return {}
    found = {"teacher_gradient_share": fmean(record["teacher_gradient_share"] for record in late)}
    gaps, residual = _gaps(late)
    return found | ({"residual_gap": fmean(gaps) / (residual or 1.0)} if gaps else {})


def teacher_had_no_say(records: Sequence[Record]) -> RunWarning | None:
    """Return a warning if the teacher had no influence on the student, else None.

    The second half of the records is judged. A run of the objective score logs `target_chance`. Its choice had no
    influence if the mean probability of the own caption (or, if that is no candidate, of the most probable one) is not
    above chance by 0.01. Other runs without a teacher's loss log no `teacher_gradient_share`, and get None. The teacher
    of those that do had no influence if

    - the mean share is under 5 %: the gradient of its loss on the image features was too small to matter; or
    - the residual with the captions (or the conditions that take their place) of other samples is no higher than
      with their own: the mean difference is under 1 % of the mean residual or, with three records or more, within two
      standard errors of 0. A run with one teacher sample per process logs no such residual.
    """
    found, reasons = influence_figures(records), []
    if not found:
        return _choice_had_no_say(records)
    share = found["teacher_gradient_share"]
    if share < MIN_GRADIENT_SHARE:
        reasons.append(
            f"on the image features, the gradient of the teacher's loss was only {share:.2g} times that of the "
            f"other losses, below the minimum of {MIN_GRADIENT_SHARE:g} (raise lambda, or let the mapper "
            "begin better: mapper_warmup_steps, and for L_SDS mapper_start)"
        )
    gaps, residual = _gaps(_late(records))
    if gaps:
        noise = 0.0
        if len(gaps) >= _ENOUGH_FOR_NOISE:
            noise = _STANDARD_ERRORS * stdev(gaps) / len(gaps) ** 0.5
        if fmean(gaps) < max(noise, MIN_RESIDUAL_GAP * residual):
            reasons.append(
                f"with the caption or the condition of another sample the residual changed by "
                f"{found['residual_gap']:+.2%}, which is no real increase (to this teacher, what the mapper makes "
                "of an image carries no information)"
            )
    if not reasons:
        return None
    message = (
        f"The teacher had no influence on the student in this run: {'; and '.join(reasons)}. In "
        "effect, this is a run without a teacher."
    )
    return RunWarning("teacher_had_no_say", message, found)


def _choice_had_no_say(records: Sequence[Record]) -> RunWarning | None:
    late = _late(records, "target_chance")
    if not late:
        return None
    name = "target_own" if "target_own" in late[0] else "target_best"
    found = {each: fmean(record[each] for record in late) for each in (name, "target_chance")}
    if found[name] - found["target_chance"] >= MIN_CHOICE_GAIN:
        return None
    message = (
        f"The choice that the student learnt in this run was no better than chance: {name} was {found[name]:.3f} on "
        f"average, and target_chance {found['target_chance']:.3f}. Either this teacher does not tell the captions "
        "apart, or score_temperature is too high for it."
    )
    return RunWarning("teacher_had_no_say", message, found)


def _late(records: Sequence[Record], name: str = "teacher_gradient_share") -> list[Record]:
    having = [record for record in records if name in record]
    return having[len(having) // 2 :]


def _gaps(records: Sequence[Record]) -> tuple[list[float], float]:
    """Return by how much each residual grows with other captions, and the mean residual; 0 if none was logged."""
    compared = [record for record in records if "residual_shuffled" in record]
    gaps = [record["residual_shuffled"] - record["residual"] for record in compared]
    return gaps, fmean(record["residual"] for record in compared) if compared else 0.0

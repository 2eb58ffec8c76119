"""From measurements of evaluation to the report's table and targets."""

from __future__ import annotations

from collections.abc import Sequence

from bench.evaluate_diffusion import Pairs
from bench.evaluate_race import Race
from bench.report import Target, median
from bench.train_report import markdown, ratio, shown_ratio

FASTER, AHEAD, FLAT = 0.95, 0.95, 1.05
"""Throughput over CLIP_benchmark's; lead over what the encodes promise; peak at four times the items."""


def race_table(races: Sequence[Race]) -> str:
    """Seconds of both, and what each encodes."""
    rows = [
        [
            race.name,
            race.items,
            f"{race.unique.images} of {race.total.images}",
            f"{race.unique.texts} of {race.total.texts}",
            _seconds(race.ours.seconds),
            _seconds(race.theirs.seconds),
            shown_ratio(race.theirs.seconds, race.ours.seconds),
            shown_ratio(race.theirs.core_seconds, race.ours.core_seconds),
            f"{race.expected:.3f}",
        ]
        for race in races
    ]
    header = (
        "shape", "items", "unique images", "unique texts", "sds-clip s", "CLIP_benchmark s",
        "throughput / CLIP_benchmark's", "the same by time of cores", "work / unique work",
    )  # fmt: skip
    return markdown(header, rows)


def memory_table(peaks: dict[int, list[float]]) -> str:
    """Peak memory by number of items."""
    least = min(peaks)
    rows = [
        [f"{items} items, {2 * items} images", _mib(found), shown_ratio(found, peaks[least])]
        for items, found in peaks.items()
    ]
    return markdown(("evaluation, demo model", "peak MiB", f"peak / peak of {least}"), rows)


def diffusion_table(found: Pairs) -> str:
    """Pairs a second of both ways."""
    rows = [
        [
            "batches of 64",
            f"{found.pairs / median(found.batched_s):.2f}",
            shown_ratio(found.naive_s, found.batched_s),
        ],
        ["a U-Net call a pair and draw", f"{found.pairs / median(found.naive_s):.2f}", "1"],
    ]
    return markdown((f"diffusion score, {found.draws} draws", "pairs/s", "throughput / naive"), rows)


def targets(winoground: Race, sugarcrepe: Race, peaks: dict[int, list[float]]) -> list[Target]:
    """What evaluation promises."""
    return [
        Target(
            "Winoground: throughput over CLIP_benchmark's",
            ratio(winoground.theirs.seconds, winoground.ours.seconds),
            FASTER,
            at_least=True,
        ),
        Target(
            "SugarCrepe: throughput over CLIP_benchmark's, over work / unique work",
            ratio(sugarcrepe.theirs.seconds, sugarcrepe.ours.seconds) / sugarcrepe.expected,
            AHEAD,
            at_least=True,
        ),
        Target(
            f"peak memory with {max(peaks)} items over that with {min(peaks)}",
            ratio(peaks[max(peaks)], peaks[min(peaks)]),
            FLAT,
            at_least=False,
        ),
    ]


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _mib(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"

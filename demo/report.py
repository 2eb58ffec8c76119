"""The demonstration's results: tables between markers in results.md, and a figure beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from demo.arms import SETTINGS
from demo.experiment import Outcome, by_variant
from demo.figure import WINDOW, curve, relative_gap, write_figure
from demo.sets import RETRIEVAL_BATCH
from demo.statistics import Difference, Interval, Score, Share, change, difference, interval, seed_means
from demo.world import COLOURS, SHAPES
from demo.yardstick import PAIRS
from models.atomic import write_atomic
from models.evaluation.winoground import CHANCE, d_prime

# Names of the markers: generated text goes from <!-- results --> to <!-- /results -->.
RESULTS, SHUFFLED = "results", "results-shuffled"
TITLES = {"layernorm": "LayerNorms alone trained", "all": "All parameters trained"}
NAMES: dict[Score, str] = {"group_match": "GroupMatch", "group": "group score"}
CLASSES = len(COLOURS) * len(SHAPES)  # the number of zero-shot classes
NONE = ""
SHARES: tuple[Share, ...] = ("retrieval", "zero_shot")
GAP = (
    "The residual gap says how much larger the teacher's error is under shuffled captions than under the true ones, "
    f"over the last {WINDOW} logged values. Beside it is the gap of the same teacher on the VAE's latents of {PAIRS} "
    "validation images, at timesteps from the same range. The share is the gradient of lambda L_SDS on the image "
    "features, divided by that of L_CLIP and the negatives, as a mean over the run."
)

# The control variant for each set of trained parameters and variant.
Controls = Mapping[tuple[str, str], str]


def write_report(
    outcomes: list[Outcome],
    base: Outcome,
    controls: Controls,
    folder: Path,
    *,
    command: str,
    scoring_s: float,
    section: str = RESULTS,
) -> None:
    """Write the tables into `results.md` between the section's markers, and `<section>.png`; prose is kept.

    Raises:
        ValueError: results.md does not have each marker once, or a control was not run on the same seeds.
    """
    picture = f"{section}.png"
    generated = tables(outcomes, base, controls, command=command, scoring_s=scoring_s, picture=picture)
    _write_between(section, generated, folder / "results.md")
    write_figure(outcomes, base, folder / picture, TITLES)


def write_screening(
    setting: str,
    outcomes: Sequence[Outcome],
    base: Outcome,
    controls: Mapping[str, str],
    folder: Path,
    *,
    scoring_s: float,
) -> None:
    """Write the table of a setting's arms into `screening.md`, between markers of its own.

    A new file gets the markers of every setting.

    Raises:
        ValueError: screening.md does not have each marker once.
    """
    generated = screening_table(outcomes, base, controls, scoring_s=scoring_s)
    file = folder / "screening.md"
    if not file.exists():
        sections = [f"## {name.capitalize()}\n\n<!-- {name} -->\n<!-- /{name} -->\n" for name in SETTINGS]
        write_atomic(file, "\n".join(["# The screening of the objectives\n", *sections]))
    _write_between(setting, generated, file)


def screening_table(
    outcomes: Sequence[Outcome], base: Outcome, controls: Mapping[str, str], *, scoring_s: float
) -> str:
    """One row per arm: scores, what must not get worse, probes, the difference to its control, and the share."""
    kinds = list(dict.fromkeys(base.measured.kinds))
    header = [
        "GroupMatch", "all", *kinds, "over its control", "d'", "group score", "retrieval", "zero-shot", "probes, image",
        "probes, text", "share", "target",
    ]  # fmt: skip
    groups = {name: runs for (_, name), runs in by_variant([base, *outcomes]).items()}
    rows = []
    for name, runs in groups.items():
        scores = [f"{100 * interval(runs, 'group_match', kind).mean:.1f}" for kind in (None, *kinds)]
        control = controls.get(name)
        over = NONE
        if control in groups:
            over = _over(difference(runs, groups[control], "group_match"), control)[0]
        group = f"{100 * interval(runs, 'group').mean:.1f}"
        shares = [f"{100 * fmean(getattr(run.measured, share) for run in runs):.1f}" for share in SHARES]
        probes = [_probes(runs, source) for source in ("pooled image embedding", "text embedding")]
        logged = [_gradient_share(runs), _target(runs)]
        rows.append([name, *scores, over, _d_prime(runs), group, *shares, *probes, *logged])
    matched = [f"{100 * CHANCE['group_match']:.1f}"] * (1 + len(kinds))
    shares = [f"{100 / RETRIEVAL_BATCH:.1f}", f"{100 / CLASSES:.1f}"]
    chances = [*matched, NONE, "0.00", f"{100 * CHANCE['group']:.1f}", *shares, "50 50 50", "50 50 50"]
    rows.append(["chance", *chances, NONE, NONE])
    made = (
        f"{_effort(outcomes, scoring_s)}; {base.measured.kinds.count(kinds[0])} items of each kind of the part "
        f"`{base.split}`. Figures are in percent, means over the seeds, and differences are in points with 95 % "
        "intervals over seeds and items. The probes read places of shapes, places of colours, and bindings. The share "
        "is the gradient of the teacher's loss on the image features, divided by that of the other losses. The "
        "target is the teacher's mean probability of the own caption, or of the most probable one if none is its own."
    )
    return f"{made}\n\n{_table(header, rows)}"


def _probes(runs: Sequence[Outcome], source: str) -> str:
    found = [run.probes[source] for run in runs if source in run.probes]
    return " ".join(f"{100 * fmean(each):.1f}" for each in zip(*found, strict=True))


def _target(runs: Sequence[Outcome]) -> str:
    _, targets = curve(runs, lambda record: record.get("target_own", record.get("target_best")))
    return f"{targets.mean():.2f}" if len(targets) else NONE


def _gap_table(groups: Mapping[tuple[str, str], list[Outcome]]) -> str:
    """The residual gap of each variant that logs one, beside that on real latents."""
    rows = [
        [
            name,
            trainable,
            _gap(runs),
            ", ".join(_gap([run]) for run in runs),
            _real_gap(runs),
            _gradient_share(runs),
        ]
        for (trainable, name), runs in groups.items()
        if _gap(runs) != NONE
    ]
    header = ["residual gap, %", "trained", "student", "each seed", "real latents", "share"]
    return _table(header, rows) if rows else NONE


def _gap(runs: Sequence[Outcome]) -> str:
    _, gaps = curve(runs, relative_gap)
    return f"{gaps[-WINDOW:].mean():+.2f}" if len(gaps) else NONE


def _gradient_share(runs: Sequence[Outcome]) -> str:
    _, shares = curve(runs, lambda record: record.get("teacher_gradient_share"))
    return f"{shares.mean():.3g}" if len(shares) else NONE


def _real_gap(runs: Sequence[Outcome]) -> str:
    gap = relative_gap(runs[0].real)
    return NONE if gap is None else f"{gap:+.2f}"


def _effort(outcomes: Sequence[Outcome], scoring_s: float) -> str:
    """Number of runs, core minutes, and number formats."""
    seeds = ", ".join(map(str, sorted({outcome.seed for outcome in outcomes})))
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    formats = {(run.options["precision"], run.options["teacher_precision"]) for run in outcomes}
    computed = " or ".join(
        f"the student in {student}, the teacher in {denoiser}" for student, denoiser in sorted(formats)
    )
    return (
        f"{len(outcomes)} runs (seeds {seeds}), {minutes:.0f} minutes of one core, and {scoring_s / 60:.0f} for the "
        f"teacher's scores that they share; {computed}"
    )


def tables(
    outcomes: Sequence[Outcome],
    base: Outcome,
    controls: Controls,
    *,
    command: str,
    scoring_s: float,
    picture: str,
) -> str:
    """The text between the markers: how it was made, and two tables per set of trained parameters."""
    kinds = list(dict.fromkeys(base.measured.kinds))
    blocks = [_made(outcomes, base, kinds, command, scoring_s)]
    groups = by_variant(outcomes)
    for trainable in dict.fromkeys(trainable for trainable, _ in groups):
        variants = {name: runs for (trained, name), runs in groups.items() if trained == trainable}
        pairs = {name: controls[trainable, name] for name in variants if (trainable, name) in controls}
        blocks.append(f"### {TITLES.get(trainable, trainable)}")
        blocks += [_score_table(variants, base, pairs, kinds, score) for score in NAMES]
        blocks.append(_other_table(variants, base))
    if gaps := _gap_table(groups):
        blocks += ["### Residual gap", GAP, gaps]
    blocks.append(f"![Scores by variant and kind, and curves of the training]({picture})")
    blocks.append(f"Curves are means over the seeds, smoothed by a running mean over {WINDOW} logged values.")
    return "\n\n".join(blocks)


def _made(
    outcomes: Sequence[Outcome], base: Outcome, kinds: Sequence[str], command: str, scoring_s: float
) -> str:
    items = ", ".join(f"{base.measured.kinds.count(kind)} {kind}" for kind in kinds)
    return (
        f"`{command}`: {_effort(outcomes, scoring_s)}. "
        f"Winoground-style items of the part `{base.split}`: {items}. Scores are in "
        "percent, and differences in points. In parentheses are 95 % intervals by a bootstrap over seeds and items, "
        "or the value of each seed, in the order of the seeds. The p of a difference comes from the same bootstrap "
        "of the paired difference. McNemar p is the largest of the seeds' exact McNemar tests (1 if the seeds "
        "disagree on the direction)."
    )


def _score_table(
    variants: Mapping[str, list[Outcome]],
    base: Outcome,
    controls: Mapping[str, str],
    kinds: Sequence[str],
    score: Score,
) -> str:
    """A score, overall and by kind, zero-shot, the difference to each variant's control, and chance."""
    header = [NAMES[score], "all", *kinds, "zero-shot", "each seed", "over its control", "p", "McNemar p"]
    rows = [["base", *_shares([base], kinds, score), *[NONE] * 4]]
    for name, runs in variants.items():
        seeds = ", ".join(f"{100 * mean:.1f}" for mean in seed_means(runs, score))
        row = [name, *_shares(runs, kinds, score), seeds]
        control = controls.get(name)
        if control is None:
            rows.append([*row, *[NONE] * 3])
        elif control in variants:
            rows.append([*row, *_over(difference(runs, variants[control], score), control)])
        else:
            raise ValueError(f"{name} has no runs of its control {control}.")
    rows.append(_chance_row(len(header), 1, *[CHANCE[score]] * (1 + len(kinds)), 1 / CLASSES))
    return _table(header, rows)


def _chance_row(columns: int, skipped: int, *chances: float) -> list[str]:
    row = ["chance", *[NONE] * (skipped - 1), *(f"{100 * chance:.1f}" for chance in chances)]
    return row + [NONE] * (columns - len(row))


def _other_table(variants: Mapping[str, list[Outcome]], base: Outcome) -> str:
    """GroupMatch's d', text and image scores, and what must not get worse."""
    header = ["", "d' by GroupMatch", "text", "image", "retrieval", "to the base", "zero-shot", "to the base"]
    rows = []
    for name, runs in {"base": [base], **variants}.items():
        row = [name, _d_prime(runs)]
        row += [f"{100 * interval(runs, score).mean:.1f}" for score in ("text", "image")]
        for share in ("retrieval", "zero_shot"):
            row += _share(runs, base, share)
        rows.append(row)
    text, image, retrieval = (
        f"{100 * chance:.1f}" for chance in (CHANCE["text"], CHANCE["image"], 1 / RETRIEVAL_BATCH)
    )
    rows.append(["chance", NONE, text, image, retrieval, NONE, f"{100 / CLASSES:.1f}", NONE])
    return _table(header, rows)


def _d_prime(runs: Sequence[Outcome]) -> str:
    """Mean over seeds."""
    found = [d_prime(run.measured.margins) for run in runs]
    known = [value for value in found if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else NONE


def _shares(runs: Sequence[Outcome], kinds: Sequence[str], score: Score) -> list[str]:
    found = [_percent(interval(runs, score, kind)) for kind in (None, *kinds)]
    return [*found, f"{100 * sum(run.measured.zero_shot for run in runs) / len(runs):.1f}"]


def _percent(found: Interval) -> str:
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _over(found: Difference, control: str) -> list[str]:
    delta = found.interval
    points = f"{100 * delta.mean:+z.1f} ({100 * delta.low:+z.1f} to {100 * delta.high:+z.1f}) over {control}"
    return [points, _p(found.p), _p(found.mcnemar_p)]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _share(runs: Sequence[Outcome], base: Outcome, share: Share) -> list[str]:
    mean = sum(getattr(run.measured, share) for run in runs) / len(runs)
    if runs == [base]:
        return [f"{100 * mean:.1f}", NONE]
    points = change(runs, base, share)
    return [
        f"{100 * mean:.1f}",
        f"{points.mean:+z.1f} ({', '.join(f'{seed:+z.1f}' for seed in points.seeds)})",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    alignment = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, alignment, *rows))


def _write_between(name: str, generated: str, file: Path) -> None:
    """Replace the text between a marker and its end; a new file gets both."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = file.read_text(encoding="utf-8") if file.exists() else f"# Results\n\n{opening}\n{closing}\n"
    if old.count(opening) != 1 or old.count(closing) != 1 or old.index(opening) > old.index(closing):
        raise ValueError(
            f"{file} needs a line {opening} and below it a line {closing}, each exactly once; add them."
        )
    between = re.compile(re.escape(opening) + ".*" + re.escape(closing), re.DOTALL)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = between.sub(lambda _: f"{opening}\n\n{generated}\n\n{closing}", old)
    write_atomic(file, new)

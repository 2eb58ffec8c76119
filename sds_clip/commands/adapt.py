"""`sds-clip adapt` fits a model to groups of images and captions that nobody has matched."""

from pathlib import Path
from typing import Any

import click

from sds_clip.commands.finetune import train_and_show
from sds_clip.models.evaluation.catalog import resolve
from sds_clip.options import command, folder_option, number_option, option
from sds_clip.signals import stopped_in_time
from sds_clip.table import say, say_written

_OPTIONS = {"objective": "clip", "negatives": "data", "negatives_loss": "choice"}
"""Each image chooses among the captions of its group, beside the contrast over the batch."""
_DECIDED = frozenset({*_OPTIONS, "base", "teacher", "data", "images", "val", "steps", "epochs", "device"})


@command(
    extra="train",
    references=True,
    examples="""\
sds-clip adapt winoground --base ViT-B-32/openai --data winoground/ --steps 200 --out runs/adapted
sds-clip evaluate winoground --model local-dir:runs/adapted/round-4/delta --data winoground/
""",
)
@click.argument("benchmark", metavar="BENCHMARK", help="The benchmark whose groups are matched.")
@option("--data", required=True, metavar="PATH", help="Read the benchmark's groups here, as `evaluate` does.")
@folder_option("--images", help="Look for the images in this folder. By default they are beside the data.")
@option("--base", required=True, metavar="REFERENCE", help="Adapt this model.")
@number_option("--rounds", default=4, metavar="N", help="Match and train so many times.")
@option(
    "--first-share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    metavar="SHARE",
    help="Train on this share of the groups in the first round, the surest ones, and on all in the last.",
)
@number_option("--steps", default=100, metavar="N", help="Train so many steps in each round.")
@option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an option of `sds-clip finetune`, such as lr=1e-4. This option may be given several times.",
)
@option("--device", default="auto", metavar="DEVICE", help="Run on this device: auto, cpu, cuda or cuda:N.")
@folder_option("--out", required=True, help="Write a folder for each round here.")
@stopped_in_time()
def adapt(
    benchmark: str,
    data: str,
    images: Path | None,
    base: str,
    rounds: int,
    first_share: float,
    steps: int,
    options: tuple[str, ...],
    device: str,
    out: Path,
) -> int:
    """Fit a model to groups of images and captions that nobody has matched.

    This is Test-Time Matching (arXiv 2510.07632). The model matches the images and captions of each group of BENCHMARK
    by its own scores, and is trained on the matches of which it is surest. Then it matches again. Which caption is
    right is not looked at. But the model has then seen the groups, so its figures on them are no longer those of a
    model that has not.

    The same command continues what was stopped. The model of the last round is the result.
    """
    from sds_clip.models.checkpoints.load import load_clip
    from sds_clip.models.evaluation.image_check import Problems, data_hash, look_at_images
    from sds_clip.models.evaluation.readers import read_benchmark
    from sds_clip.models.evaluation.scorers import ClipScorer
    from sds_clip.models.recipes.recipe import renamed
    from sds_clip.models.training.config import parse_config
    from sds_clip.models.training.matching import MatchedPairs, groups_of, matches, surest
    from sds_clip.models.training.parts import Parts
    from sds_clip.models.training.processes import find_rank
    from sds_clip.models.training.run import OPERATIONAL

    rank = find_rank(device)
    if any("=" not in each for each in options):
        raise click.UsageError("Write --option as NAME=VALUE, such as --option lr=1e-4.")
    given = renamed(dict(each.split("=", 1) for each in options))
    if taken := sorted(_DECIDED & given.keys()):
        raise click.UsageError(f"--option cannot set {taken[0]}, which the command decides.")
    config = parse_config({**_OPTIONS, **given, "base": base, "data": data, "steps": steps, "device": device})
    clip = load_clip(base, device=str(rank.device), precision="float32")
    model, reference = clip, base
    read = read_benchmark(resolve(benchmark), Path(data), work=out, images=images)
    groups = groups_of(read)
    problems = Problems(len(groups))
    seen = look_at_images(groups, problems)
    problems.check()
    _begin(
        out / "adapt.json",
        base=clip.version,
        data=data_hash(groups, seen.keys, read.settings),
        rounds=rounds,
        first_share=first_share,
        options=config.model_dump(mode="json", exclude={*OPERATIONAL, "base", "data"}),
    )
    for number in range(1, rounds + 1):
        folder = out / f"round-{number}"
        if not (folder / "delta").exists():
            with ClipScorer(model, out / "features") as scorer:
                scorer.prepare(groups, seen, problems)
                problems.check()
                found = matches(groups, scorer.scores(groups))
            share = first_share + (1 - first_share) * (number - 1) / max(1, rounds - 1)
            sure = surest(found, share)
            say(f"Round {number} of {rounds}: {len(sure)} of {len(found)} groups are matched.")
            stopped = "Stopped after step {} of the round. The same command continues it."
            result, code = train_and_show(
                config, Parts(clip, MatchedPairs(sure)), folder, rank, stopped, resume=True
            )
            if result.delta is None:
                return code
        reference = f"local-dir:{folder / 'delta'}"
        model = load_clip(reference, device=str(rank.device), precision="float32")
    print(reference)
    say_written(out / f"round-{rounds}" / "delta")
    return 0


def _begin(file: Path, **asked: Any) -> None:
    """Keep what is asked for. Raises ConfigError if rounds are there that were asked for otherwise."""
    from sds_clip.models.errors import ConfigError
    from sds_clip.models.evaluation.results import write_json
    from sds_clip.models.files import read_object

    if file.exists():
        before = read_object(file, ConfigError, "remove its folder")
        if changed := [name for name, value in asked.items() if before.get(name) != value]:
            raise ConfigError(
                f"{file.parent} was begun with other {' and '.join(changed)}. Restore them, or use another --out."
            )
    write_json(file, asked)

"""`sds-clip compare` trains recipes on the same data, measures them, and compares them on one page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sds_clip.commands.evaluate import check_reference, make_evaluator
from sds_clip.commands.finetune import train_and_show
from sds_clip.extras import missing_packages, require_extra
from sds_clip.options import command, compute_option, folder_option, option
from sds_clip.remote import connect
from sds_clip.run_file import read_options
from sds_clip.signals import stopped_in_time
from sds_clip.table import printable_lines, say, table

if TYPE_CHECKING:
    from sds_clip.models.data.pairs import PairSet
    from sds_clip.models.evaluation.benchmark import Benchmark
    from sds_clip.models.recipes.arms import Arms
    from sds_clip.models.recipes.train import Trained
    from sds_clip.models.training.config import FinetuneConfig
    from sds_clip.models.training.parts import Parts


@command(
    extra="serve",
    examples="""\
sds-clip compare plan.yaml --out comparisons/first --dry-run
sds-clip compare plan.yaml --out comparisons/first
sds-clip compare plan.yaml --out comparisons/first --url http://gpu:8000
sds-clip compare paper --print > paper.yaml
""",
)
@click.argument("plan", metavar="PLAN", help="A YAML file, or the name of a plan that ships: paper.")
@folder_option("--out", help="Write everything to this folder, which is created if needed.")
@option(
    "--dry-run",
    is_flag=True,
    help="Check the input, estimate time, memory, disk and power, and write nothing. With --url, upload the data, and "
    "ask the service for time and memory.",
)
@option("--print", "shows", is_flag=True, help="Print the plan's file, to begin one of your own with.")
@option(
    "--url",
    metavar="URL",
    help="Train and measure by jobs of the service at this URL, on all of its free workers. If it asks for an API key, "
    "set SDS_CLIP_API_KEY.",
)
@compute_option(
    "--device", default="auto", metavar="DEVICE", help="Compute on this device: auto, cpu, cuda or cuda:N."
)
@stopped_in_time()
def compare(plan: str, out: Path | None, dry_run: bool, shows: bool, url: str | None, device: str) -> int:
    """Train recipes on the same data, and compare them on one page.

    The plan names a base, training data, recipes, seeds and benchmarks. The command measures the base, trains every
    recipe with every seed on the same samples in the same order, measures every run, and compares it with the control
    and with the base by paired tests.

    The folder --out receives report.md (one page), table.tsv (every figure), differences.tsv, the runs and the
    evaluations. If the command was killed, the same command continues it. Recipes, seeds, benchmarks and models may be
    added to the plan later.
    """
    file = _file(plan)
    if shows:
        print(file.read_text(encoding="utf-8"), end="")
        return 0
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    from sds_clip.models.recipes.arms import Arms
    from sds_clip.models.recipes.plan import read_plan

    _check_out(out)
    arms = Arms(read_plan(read_options(file)), out.absolute())
    arms.check_plan()
    if url is not None:
        from sds_clip.commands.compare_service import Service

        with connect(url) as client:
            service = Service(arms, client, say)
            if dry_run:
                print(printable_lines(service.estimate()))
                return 0
            service.run()
        return _show(arms, "")
    if missing_packages("train"):
        require_extra("train", "sds-clip compare")
    return _here(arms, device, dry_run=dry_run)


def _file(plan: str) -> Path:
    from sds_clip.models.recipes.plan import PLANS

    shipped = PLANS / f"{plan}.yaml"
    if not Path(plan).exists() and shipped.exists():
        return shipped
    if not Path(plan).is_file():
        names = ", ".join(sorted(each.stem for each in PLANS.glob("*.yaml")))
        raise click.UsageError(
            f"There is no file {plan}. Give a plan's file, or the name of one that ships: {names}."
        )
    return Path(plan)


def _check_out(out: Path) -> None:
    from sds_clip.models.recipes.arms import FOLDERS

    out = out.absolute()
    there = next(each for each in (out, *out.parents) if each.exists())
    for folder in (there, *(out / name for name in FOLDERS)):
        if folder.exists() and not folder.is_dir():
            raise click.UsageError(f"--out must be a folder, but {folder} is a file.")
    if not os.access(there, os.W_OK):
        raise click.UsageError(f"--out must be a folder that can be written, but {there} cannot.")


def _here(arms: Arms, device: str, *, dry_run: bool) -> int:
    from sds_clip.models.data.open import open_pairs
    from sds_clip.models.recipes.shared import sentence, shared_pictures, without
    from sds_clip.models.recipes.train import Trained
    from sds_clip.models.training.processes import find_rank

    rank = find_rank(device)
    if rank.world_size > 1:
        raise click.UsageError("`sds-clip compare` runs in one process. Start it without a launcher.")
    trained = Trained(arms, rank, make_evaluator(arms.out / "cache", str(rank.device)), say)
    with _checked(trained) as benchmarks:
        data = open_pairs(arms.plan.data, images=arms.plan.images)
        shared = shared_pictures(data, benchmarks)
        left_out = set().union(*shared.values()) if arms.plan.leave_out_shared else set()
        _check_pairs(trained, without(data, left_out))
        if dry_run:
            from sds_clip.commands.compare_estimate import estimate

            print(printable_lines(estimate(trained, benchmarks)))
            return 0
    say(sentence(shared))
    arms.begin(left_out)
    # Before hours of training, since benchmarks may have damaged images, and models damaged weights.
    _measure(trained)
    codes: list[int] = []

    def train(name: str, config: FinetuneConfig, parts: Parts, folder: Path) -> bool:
        stopped = f"{name} stopped after step {{}}. The same command continues it."
        result, code = train_and_show(config, parts, folder, rank, stopped, resume=True)
        codes.append(code)
        return result.delta is not None

    if not trained.train(train, left_out):
        return codes[-1]
    _measure(trained)
    return _show(arms, sentence(shared) + (" They were left out of training." if left_out else ""))


def _measure(trained: Trained) -> None:
    for results in trained.measure():
        value = results.metrics[results.primary].value
        say(f"{results.provenance['model']} on {results.benchmark}: {results.primary} {value:.2%}")


def _show(arms: Arms, shared: str) -> int:
    from sds_clip.models.recipes.differences import lines
    from sds_clip.models.recipes.page import shown, write_page

    found = lines(arms)
    page = write_page(arms, found, shared)
    print(table(*shown(arms, found)))
    print(f"\n{page}")
    say(f"Wrote {page}, {page.with_name('table.tsv')} and {page.with_name('differences.tsv')}.")
    return 0


def _check_pairs(trained: Trained, pairs: PairSet) -> None:
    """Find what a recipe cannot use of the training data, before another one is trained on them."""
    import torch

    from sds_clip.models.data.batches import steps_per_epoch
    from sds_clip.models.training.parts import check_captions, with_negatives
    from sds_clip.models.training.score_targets import LabelScores

    for config in (
        trained.config(recipe, trained.arms.plan.seeds[0]) for recipe in trained.arms.plan.recipes
    ):
        steps_per_epoch(len(pairs), config.batch_size)  # refuses a batch larger than the data
        own = with_negatives(config, pairs)  # refuses data without those that the options ask for
        check_captions(config, own)
        if config.labels is not None:
            LabelScores(config, own, torch.device("cpu"))


@contextmanager
def _checked(trained: Trained) -> Iterator[list[Benchmark]]:
    """Find what cannot be used before anything is written. Yield the benchmarks, whose files may be temporary."""
    from sds_clip.models.data.open import open_pairs
    from sds_clip.models.evaluation.items import read_bytes
    from sds_clip.models.evaluation.readers import read_benchmark
    from sds_clip.models.evaluation.winoground import HUB_ID
    from sds_clip.models.teacher.load import load_teacher

    plan = trained.arms.plan
    for reference in (plan.base, *plan.also.values()):
        check_reference(reference)
    configs = [trained.config(recipe, plan.seeds[0]) for recipe in plan.recipes]
    for needs_vae in {config.needs_vae for config in configs if config.uses_teacher}:
        assert plan.teacher is not None
        load_teacher(plan.teacher, device="cpu", precision="bfloat16", vae=needs_vae)
    open_pairs(plan.data, images=plan.images).image(0)
    if plan.val:
        open_pairs(plan.val, images=plan.val_images or plan.images).image(0)
    with tempfile.TemporaryDirectory(prefix="sds-clip-compare-") as made:
        benchmarks = [
            read_benchmark(name, asked.data, work=Path(made), **asked.of_some)
            for name, asked in plan.requests(plan.base).items()
            if asked.data != HUB_ID
        ]
        trained.arms.check_kept(benchmarks)
        for benchmark in benchmarks:  # the evaluation of the base reads them all
            for image in benchmark.items[0].images:
                read_bytes(image)
        yield benchmarks

"""Train and measure the arms of a comparison in this process, one after the other."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sds_clip.models.errors import TrainingError
from sds_clip.models.evaluation.evaluation import Evaluator
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.models.evaluation.results import Results
from sds_clip.models.recipes.arms import Arms
from sds_clip.models.recipes.plan import BASE
from sds_clip.models.recipes.shared import without
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import Parts, introduce, load_parts
from sds_clip.models.training.processes import Rank
from sds_clip.models.training.run import resolved

Say = Callable[[str], None]
Train = Callable[[str, FinetuneConfig, Parts, Path], bool]
"""Trains a run of this name, and returns whether it was finished."""


@dataclass(frozen=True)
class Trained:
    """The arms of a plan on a device of this machine."""

    arms: Arms
    rank: Rank
    evaluator: Evaluator
    say: Say

    def config(self, recipe: str, seed: int) -> FinetuneConfig:
        """The options of a run, resolved, so that all runs compute in the same format. Raises ConfigError."""
        own = {"caption_cache": self.arms.out / "captions", "device": str(self.rank.device)}
        return resolved(self.arms.plan.config(recipe, seed, **own), self.rank)

    def train(self, train: Train, left_out: Collection[str]) -> bool:
        """Train what is not trained yet, and return whether all is. Raises as `sds_clip.models.training.run.train`."""
        parts: Parts | None = None
        introduced = set[str]()
        teacher = lru_cache(maxsize=1)(self._teacher)
        for recipe, seed in self.arms.plan.arms():
            folder, config = self.arms.run(recipe, seed), self.config(recipe, seed)
            if not (folder / "delta").exists():
                if parts is None:
                    parts = load_parts(config.model_copy(update={"teacher": None}), self.rank, self.say)
                    parts = replace(parts, pairs=without(parts.pairs, left_out))
                    self.arms.check_data(parts.pairs.content_hash)
                    introduced.add(recipe)
                own = replace(parts, teacher=teacher(*_of_teacher(config)) if config.uses_teacher else None)
                if recipe not in introduced:
                    introduce(config, own, self.rank, self.say)
                    introduced.add(recipe)
                self.say(f"training {folder.name}")
                if not train(folder.name, config, own, folder):
                    return False
            self.arms.check_alike(recipe, seed, config.model_dump(mode="json"))
        return True

    def _teacher(
        self, reference: str, guidance: float | None, needs_vae: bool, is_checkpointed: bool
    ) -> Teacher:
        self.say(f"loading the teacher {reference}")
        any_run = self.config(*next(self.arms.plan.arms()))
        teacher = load_teacher(
            reference, device=str(self.rank.device), precision=any_run.teacher_precision, guidance=guidance,
            vae=needs_vae, caption_cache=any_run.caption_cache, offload=any_run.teacher_offload,
        )  # fmt: skip
        if is_checkpointed:
            teacher.enable_activation_checkpointing()
        return teacher

    def measure(self) -> Iterator[Results]:
        """Measure each model on each benchmark on which it, as it is now, has no results, and keep them.

        Models that are not trained yet are left out. Raises as `Evaluator.evaluate` and `Arms.keep`.
        """
        # A model is on all benchmarks one after another.
        evaluator = replace(self.evaluator, load_clip=lru_cache(maxsize=1)(self.evaluator.load_clip))
        for model, reference in self.references().items():
            for benchmark, asked in self.arms.plan.requests(reference).items():
                if self._is_measured(evaluator, model, asked):
                    continue
                results = evaluator.evaluate(asked).results
                self.arms.keep(benchmark, model, results)
                yield results

    def references(self) -> dict[str, str]:
        """Return the references of the models that there are, by name, in the order in which they are compared."""
        plan = self.arms.plan
        for arm in plan.arms():
            if (self.arms.run(*arm) / "delta").exists():
                self.arms.described(*arm)  # says what to remove if it is damaged
        runs = {f"{recipe}-{seed}": self.arms.run(recipe, seed) / "delta" for recipe, seed in plan.arms()}
        named = {BASE: plan.base, **plan.also} | {
            name: f"local-dir:{delta}" for name, delta in runs.items() if delta.exists()
        }
        return {name: named[name] for name in self.arms.models if name in named}

    def _is_measured(self, evaluator: Evaluator, model: str, asked: EvaluationRequest) -> bool:
        results, base = (self.arms.results(asked.benchmark, name) for name in (model, BASE))
        if results is None or base is None:
            return False
        assert asked.model is not None
        version = evaluator.load_clip(asked.model, asked.precision).version
        if model == BASE and results.provenance["model_version"] != version:
            raise TrainingError(
                f"{asked.model} has other weights now than when it was evaluated. Use another --out."
            )
        kept = {name: results.provenance[name] for name in ("model_version", "data_hash")}
        return kept == {"model_version": version, "data_hash": base.provenance["data_hash"]}


def _of_teacher(config: FinetuneConfig) -> tuple[Any, ...]:
    """What a teacher is loaded by."""
    return config.teacher, config.guidance, config.needs_vae, config.activation_checkpointing

"""The commands of docs/reproduce.md are ones that the command line takes."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sds_clip.models.recipes.plan import PLANS
from tests.sds_clip import command_line

TEXT = (Path(__file__).parents[1] / "docs" / "reproduce.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
CONFIGURATION = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def arguments(line: str) -> list[str]:
    words = shlex.split(line.partition(" > ")[0], comments=True)
    start = next(place for place, word in enumerate(words) if word in ("sds-clip", "sds_clip"))
    return words[start + 1 :]


def parsed(line: str) -> Mapping[str, Any]:
    return command_line.parsed(arguments(line))


def commands(name: str) -> list[str]:
    return [line for line in LINES if re.search(rf"\bsds[-_]clip {name}\b", line)]


@pytest.mark.parametrize("line", [line for line in LINES if re.search(r"\bsds[-_]clip ", line)])
def test_command_is_understood(line: str) -> None:
    assert parsed(line)


def test_training_commands_make_whole_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written,) = CONFIGURATION
    (tmp_path / "coco.yaml").write_text(written, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    configs = [command_line.config_of(arguments(line)) for line in commands("finetune")]

    stated = yaml.safe_load(written)
    assert len(configs) == 7
    for config in configs:
        assert config.model_dump(mode="json", include=set(stated)) == stated
    assert {config.base for config in configs} == {f"ViT-{size}/openai" for size in ("B-32", "L-14")}


def test_the_plan_that_ships_has_the_options_of_the_configuration() -> None:
    stated, plan = yaml.safe_load(CONFIGURATION[0]), yaml.safe_load((PLANS / "paper.yaml").read_text())
    common = stated.keys() & plan["options"].keys()
    assert common >= {"steps", "batch_size", "micro_batch_size", "sds_batch_size"}
    assert {name: plan["options"][name] for name in common} == {name: stated[name] for name in common}
    assert {name: plan[name] for name in ("data", "images", "val")} == {
        name: stated[name] for name in ("data", "images", "val")
    }


def test_every_run_has_a_control_that_differs_in_its_objective_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coco.yaml").write_text(CONFIGURATION[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    alone = [line for line in commands("finetune") if line.startswith("sds-clip")]

    configs = [command_line.config_of(arguments(line)) for line in alone]

    for run, control in zip(configs[::2], configs[1::2], strict=True):
        assert control.objective == "clip"
        assert run.objective != "clip"
        assert control == run.model_copy(update={"objective": "clip"})


def test_evaluated_and_exported_runs_are_trained_before() -> None:
    outs = {str(parsed(line)["out"]) for line in commands("finetune")}
    used = set(re.findall(r"(runs/[\w-]+)/delta", TEXT))

    assert used <= outs
    assert used

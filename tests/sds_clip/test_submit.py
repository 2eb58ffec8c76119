"""`sds-clip jobs submit`: what is made of a file and of the options that go over it."""

import json
from pathlib import Path

import click
import pytest
import yaml

from sds_clip.app.schemas.finetune import PATH_OPTIONS, FinetuneSpec
from sds_clip.commands.submit import FINETUNE, OF_A_MACHINE, RENAMED, request
from sds_clip.models.training.config import FinetuneConfig, TrainingOptions
from sds_clip.run_file import read_options


def test_every_option_of_a_run_is_a_field_a_hyperparameter_or_of_the_machine() -> None:
    assert FinetuneSpec.model_fields.keys() == FINETUNE
    others = (
        FinetuneConfig.model_fields.keys() - TrainingOptions.model_fields.keys() - FINETUNE - RENAMED.keys()
    )
    assert others == set(OF_A_MACHINE)
    assert set(OF_A_MACHINE) | RENAMED.keys() >= PATH_OPTIONS


def test_the_file_of_a_run_becomes_a_request_that_the_service_accepts() -> None:
    config = FinetuneConfig(data=Path("my-pairs"), val=Path("more"), teacher="demo", steps=7, device="cpu")
    values = json.loads(config.model_dump_json())

    kind, fields = request(
        values,
        ["sds_weight=0.5", "validation_data=null", "thresholds.max_loss=0.02", "evaluate=[]", "name=first"],
    )

    assert kind == "finetune"
    spec = FinetuneSpec.model_validate_json(json.dumps(fields), strict=True)
    assert (spec.name, spec.training_data, spec.validation_data) == ("first", "my-pairs", None)
    assert (spec.hyperparameters.steps, spec.hyperparameters.sds_weight) == (7, 0.5)
    assert spec.thresholds.max_loss == 0.02


def test_numbers_that_yaml_takes_for_texts_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: my-pairs\nlambda: 1e-4\nhyperparameters: {lr: 3e-3, eps: 1.e+2}\nthresholds: {max_loss: 2E-2}\n"
        'metadata: {run: "1e-4"}\n'
    )
    _, fields = request(read_options(file), [])
    assert fields["hyperparameters"] == {"lr": 0.003, "eps": 100.0, "sds_weight": 0.0001}
    assert (fields["thresholds"], fields["metadata"]) == ({"max_loss": 0.02}, {"run": "1e-4"})


def test_names_in_metadata_keep_their_dashes() -> None:
    assignments = ["metadata.my-team=a", "thresholds.max-loss=1"]
    _, fields = request({"data": "a"}, assignments)
    assert (fields["metadata"], fields["thresholds"]) == ({"my-team": "a"}, {"max_loss": 1})


def test_an_option_goes_over_the_file_by_either_name() -> None:
    for one, other in (("data", "training_data"), ("training_data", "data")):
        assert request({one: "a"}, [f"{other}=b"])[1]["training_data"] == "b"


def test_a_benchmark_makes_it_an_evaluation() -> None:
    kind, fields = request({"benchmark": "winoground", "data": "wino"}, ["model=default"])
    assert (kind, fields) == ("evaluate", {"benchmark": "winoground", "data": "wino", "model": "default"})


@pytest.mark.parametrize(
    ("values", "assignment", "named"),
    [
        ({"steps": 3}, "lr=1", "training_data"),
        ({"benchmark": "winoground"}, "model=demo", "data"),
        ({"data": "a", "hyperparameters": 3}, "lr=1", "hyperparameters"),
        ({"data": "a"}, "lr", "lr"),
        ({"data": "a"}, "data.x=1", "training_data"),
    ],
)
def test_an_error_names_the_field(values: dict[str, object], assignment: str, named: str) -> None:
    with pytest.raises(click.ClickException, match=named):
        request(values, [assignment])


def test_a_yaml_file_may_override_what_it_merges(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("metadata: &a {lr: 1, seed: 0}\nhyperparameters: {<<: *a, lr: 2}\n")
    assert read_options(file)["hyperparameters"] == {"lr": 2, "seed": 0}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: ["),
        ("a.json", "{"),
        ("a.yaml", "- 1"),
        ("a.yaml", "name: 2026-11-27"),
        ("a.yaml", "lr: .nan"),
        ("a.yaml", "&a {metadata: *a}"),
        ("a.yaml", "[" * 20_000),
        ("a.yaml", "lr: 0.1\nlr: 0.2"),
        ("a.yaml", "log-every: 1\nlog_every: 2"),
        ("a.yaml", "lambda: 5\nsds_weight: 3"),
        ("a.json", '{"lr": 0.1, "lr": 0.2}'),
    ],
)
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(click.ClickException, match=name):
        read_options(file)


def test_json_and_yaml_are_read_alike(tmp_path: Path) -> None:
    values = {"training-data": "a", "hyperparameters": {"steps": 3}}
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    read = read_options(tmp_path / "a.json")
    assert (
        read == read_options(tmp_path / "a.yaml") == {"training_data": "a", "hyperparameters": {"steps": 3}}
    )

"""The items of evaluations, their pictures, and the comparison of two evaluations."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import Evaluation, FinetuneSpec, Hyperparameters
from sds_clip.app.store.records import Job, NewJob
from sds_clip.app.store.states import JobKind
from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results, read_results, write_results
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.finetune_job import finetune
from tests.app.datasets.archives import tar_of, tree
from tests.app.datasets.test_routes import checked
from tests.app.jobs.conftest import Keyed, Service, error_of
from tests.benchmark_sets import save_folders, save_set
from tests.checkpoints import save_tiny_clip
from tests.sds_clip.test_every_benchmark import retrieval
from tests.training import save_coco
from tests.worker.in_process import run_job
from tests.worker.sets import save_winoground

COUNT = 24


@dataclass
class Evaluations:
    """A service, and a worker's hand that evaluates two models at once."""

    service: Service
    roots: Path
    models: tuple[str, str]
    owner: str = ""

    def dataset(self, folder: Path, format: str) -> str:
        files = {"file": ("a.tar", tar_of(tree(folder)))}
        answer = self.service.client.post("/datasets", data={"format": format}, files=files)
        return str(checked(self.service, answer.json()["id"], self.roots)["id"])

    def evaluation(self, benchmark: str, data: str, model: int = 0, name: str = "", **fields: Any) -> str:
        spec = EvaluateSpec(benchmark=benchmark, data=data, model=self.models[model], **fields)
        new = NewJob(JobKind.EVALUATE, {"of": name or str(model)}, spec.as_row(), name=name, owner=self.owner)
        job, _ = self.service.store.jobs.submit(new)
        run_job(self._config("evaluate"), self.service.store, job, evaluate)
        return job.id

    def finetuning(
        self, training: str, *sets: tuple[str, str], name: str, seed: int = 0, **fields: Any
    ) -> Job:
        """A job that has trained a version of the first model and measured it on data sets by their benchmarks."""
        spec = FinetuneSpec(
            base=self.models[0],
            objective="clip",
            training_data=training,
            hyperparameters=Hyperparameters(steps=20, batch_size=8, lr=3e-3, precision="float32"),
            evaluate=tuple(Evaluation(benchmark=benchmark, data=data) for benchmark, data in sets),
            seed=seed,
            **fields,
        )
        new = NewJob(JobKind.FINETUNE, {"of": name}, spec.as_row(), name=name, owner=self.owner)
        job, _ = self.service.store.jobs.submit(new)
        return run_job(self._config("finetune"), self.service.store, job, finetune)

    def _config(self, queue: str) -> WorkerConfig:
        settings = self.service.settings
        return WorkerConfig("", str(settings.database_url), settings.data_dir, queue, device="cpu")

    def file(self, job_id: str, name: str = "results") -> Path:
        result = self.service.store.jobs.get(job_id).result
        assert result is not None
        return self.service.settings.data_dir / result["files"][name]

    def get(self, path: str, **params: Any) -> Any:
        answer = self.service.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def items(self, job_id: str, limit: int = 100, **params: Any) -> list[dict[str, Any]]:
        """All of them, by pages."""
        found: list[dict[str, Any]] = []
        while True:
            after = {"after": found[-1]["index"]} if found else {}
            page = self.get(f"/jobs/{job_id}/items", limit=limit, **params, **after)
            assert len(page["data"]) <= limit
            found += page["data"]
            if not page["has_more"]:
                return found


@pytest.fixture
def evaluations(service: Service, roots: Path, tiny_folder: Path, tmp_path: Path) -> Evaluations:
    other = save_tiny_clip(tmp_path / "other-model", seed=7)
    return Evaluations(service, roots, (f"local-dir:{tiny_folder}", f"local-dir:{other}"))


@pytest.fixture
def winoground(evaluations: Evaluations, tmp_path: Path) -> str:
    folder = save_winoground(tmp_path / "winoground", COUNT)
    lines = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["tag"] = ["Object", "Relation", "Both"][number % 3]
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return evaluations.dataset(folder, "winoground")


def test_items_are_those_of_the_results_with_the_pictures_of_the_data(
    evaluations: Evaluations, winoground: str, tmp_path: Path
) -> None:
    job_id = evaluations.evaluation("winoground", winoground)
    expected = json.loads(evaluations.file(job_id).read_text())["items"]
    found = evaluations.items(job_id, limit=7)
    assert [each["index"] for each in found] == list(range(COUNT))
    for each, item in zip(found, expected, strict=True):
        assert (each["id"], each["captions"], each["tags"]) == (item["id"], item["captions"], item["tags"])
        assert (each["outcomes"], each["margins"]) == (item["correct"], item["margins"])
        assert (each["scores"], each["benchmark"], each["other"]) == (item["scores"], "winoground", None)
        for side, path in enumerate(each["images"]):
            picture = evaluations.service.client.get(path)
            assert (
                picture.content
                == (tmp_path / f"winoground/images/ex_{item['id']}_img_{side}.png").read_bytes()
            )
            assert picture.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert len(each["images"]) == 2
    tagged = evaluations.items(job_id, limit=3, tag="tag: Object")
    assert tagged == [each for each in found if "tag: Object" in each["tags"]]
    assert len(tagged) == COUNT / 3
    assert evaluations.items(job_id, tag="nothing") == []


def test_flipped_items_are_found_as_by_hand(evaluations: Evaluations, winoground: str) -> None:
    before, after = (evaluations.evaluation("winoground", winoground, model, f"m{model}") for model in (0, 1))
    whole = evaluations.items(after, **{"with": "m0"})
    results = {job: json.loads(evaluations.file(job).read_text())["items"] for job in (before, after)}
    assert [each["other"]["outcomes"] for each in whole] == [item["correct"] for item in results[before]]
    assert [each["other"]["scores"] for each in whole] == [item["scores"] for item in results[before]]
    changed = set()
    for outcome in ("text", "image", "group_match"):
        states = [
            (was["correct"][outcome], now["correct"][outcome])
            for was, now in zip(results[before], results[after], strict=True)
        ]
        wanted: dict[str, Callable[[bool, bool], bool]] = {
            "right_to_wrong": lambda was, now: was and not now,
            "wrong_to_right": lambda was, now: now and not was,
            "changed": lambda was, now: was != now,
            "same": lambda was, now: was == now,
        }
        for flip, rule in wanted.items():
            found = evaluations.items(after, limit=5, flip=flip, outcome=outcome, **{"with": before})
            assert [each["index"] for each in found] == [
                index for index, state in enumerate(states) if rule(*state)
            ], (outcome, flip)
        changed |= set(states)
    assert len(changed) == 4
    assert evaluations.items(after, flip="same", **{"with": after}) == evaluations.items(
        after, **{"with": after}
    )


def test_right_and_wrong_items_are_found_by_outcome(evaluations: Evaluations, winoground: str) -> None:
    job_id = evaluations.evaluation("winoground", winoground)
    whole = evaluations.items(job_id)
    for outcome in ("text", "group"):
        for right in (True, False):
            found = evaluations.items(job_id, limit=5, right=right, outcome=outcome)
            expected = [item["index"] for item in whole if item["outcomes"][outcome] is right]
            assert [item["index"] for item in found] == expected


def test_comparison_is_that_of_the_command_line(evaluations: Evaluations, winoground: str) -> None:
    before, after = (evaluations.evaluation("winoground", winoground, model) for model in (0, 1))
    found = evaluations.get(f"/jobs/{after}/comparison", **{"with": before})
    expected = compare(*(read_results(evaluations.file(job)) for job in (before, after)))
    wanted = json.loads(json.dumps(asdict(expected)))
    for kind in (found["outcomes"], *found["by_tag"].values()):
        for outcome in kind.values():
            outcome["outcome"] = next(name for name, of in kind.items() if of is outcome)
    assert {name: found[name] for name in wanted if name != "seed"} == {
        name: value for name, value in wanted.items() if name != "seed"
    }
    assert {"tag: Object", "tag: Relation", "tag: Both"} < set(found["by_tag"])
    assert found["outcomes"]["group_match"]["chance"] == 0.5


def test_job_s_own_baseline_is_compared_by_default(evaluations: Evaluations, winoground: str) -> None:
    job_id = evaluations.evaluation("winoground", winoground, 1, baseline=evaluations.models[0])
    found = evaluations.get(f"/jobs/{job_id}/comparison")
    kept = json.loads(evaluations.file(job_id, "comparison").read_text())
    assert found["outcomes"]["group"]["counts"] == kept["outcomes"]["group"]["counts"]
    assert found["outcomes"]["group"]["p_better"] == kept["outcomes"]["group"]["p_better"]
    baseline = json.loads(evaluations.file(job_id, "baseline").read_text())["items"]
    other = [each["other"]["outcomes"] for each in evaluations.items(job_id)]
    assert other == [item["correct"] for item in baseline]


@dataclass
class Trained:
    """A fine-tuning job and its control, which have measured the same data, and an evaluation of each version."""

    evaluations: Evaluations
    winoground: str
    retrieval: str
    job: Job
    control: Job

    def evaluated(self, of: Job, benchmark: str, data: str) -> str:
        reference = f"local-dir:{self.evaluations.service.settings.data_dir}/versions/{of.result_version}"
        again = replace(self.evaluations, models=(reference, ""))
        return again.evaluation(benchmark, data, name=f"{of.name}-{benchmark}")


@pytest.fixture
def trained(evaluations: Evaluations, winoground: str, tmp_path: Path) -> Trained:
    training = evaluations.dataset(save_coco(tmp_path / "pairs").parent, "pairs")
    retrieval(tmp_path / "looked-up")
    looked_up = evaluations.dataset(tmp_path / "looked-up", "retrieval")
    sets = ("winoground", winoground), ("retrieval", looked_up)
    job = evaluations.finetuning(training, *sets, name="job")
    control = evaluations.finetuning(training, *reversed(sets), name="control", seed=1)
    assert job.result_version != control.result_version
    return Trained(evaluations, winoground, looked_up, job, control)


def test_items_of_a_fine_tuning_job_are_those_of_evaluations_of_its_version(trained: Trained) -> None:
    evaluations, job = trained.evaluations, trained.job
    for benchmark, data in (("winoground", trained.winoground), ("retrieval", trained.retrieval)):
        evaluation = trained.evaluated(job, benchmark, data)
        expected = evaluations.items(evaluation)
        found = evaluations.items(job.id, on=f"{benchmark} ({data})")
        assert found == expected
        assert evaluations.service.client.get(found[-1]["images"][-1]).status_code == 200
    assert [item["benchmark"] for item in evaluations.items(job.id, limit=1)[:1]] == ["winoground"]
    refused = error_of(evaluations.service.client.get(f"/jobs/{job.id}/items?on=aro"), 422)
    assert (refused["param"], f"winoground ({trained.winoground})" in refused["message"]) == ("on", True)


def test_job_and_its_control_are_compared_as_evaluations_of_their_versions(trained: Trained) -> None:
    """The control has measured the same data in another order: what both have measured is compared."""
    evaluations, job, control = trained.evaluations, trained.job, trained.control
    of_job, of_control = (
        trained.evaluated(each, "winoground", trained.winoground) for each in (job, control)
    )
    expected = evaluations.get(f"/jobs/{of_job}/comparison", **{"with": of_control})
    assert expected["outcomes"]["group_match"]["counts"]["both"] < COUNT
    for after, before in ((job.id, "control"), (job.id, of_control), (of_job, control.id)):
        assert evaluations.get(f"/jobs/{after}/comparison", **{"with": before}) == expected
    looked_up = f"retrieval ({trained.retrieval})"
    found = evaluations.get(f"/jobs/{job.id}/comparison", **{"with": control.id, "on": looked_up})
    assert found["benchmark"] == "retrieval"
    lost = evaluations.items(job.id, flip="right_to_wrong", on=looked_up, **{"with": control.id})
    assert len(lost) == found["outcomes"][found["outcome"]]["counts"]["lost"]
    refused = evaluations.service.client.get(f"/jobs/{job.id}/comparison")
    assert error_of(refused, 422)["code"] == "not_comparable"


def test_gate_compares_a_version_with_its_control_by_what_both_jobs_have_measured(trained: Trained) -> None:
    client, job, control = trained.evaluations.service.client, trained.job, trained.control
    body = {"alias": "trial", "reason": "the control"}
    assert client.post(f"/models/{control.result_version}/promote", json=body).status_code == 200

    plan = client.post(f"/models/{job.result_version}/promote", json={**body, "dry_run": True}).json()

    gate = plan["gate"]
    assert gate["verdict"] in ("better", "not_better"), gate["why"]
    assert (gate["compared_with"], gate["missing"]) == (control.result_version, [])
    assert set(gate["evidence"]) == {job.id, control.id}
    path = f"/jobs/{job.id}/comparison"
    compared = trained.evaluations.get(path, **{"with": control.id})["outcomes"]["group_match"]
    [figure] = [each for each in gate["figures"] if each["figure"] == "group_match"]
    assert figure == {
        "on": f"winoground ({trained.winoground})",
        "figure": "group_match",
        "before": compared["baseline"],
        "after": compared["model"],
    }
    assert client.delete(f"/jobs/{control.id}").status_code == 200
    assert error_of(client.get(path, params={"with": control.id}), 404)["code"] == "no_items"
    again = client.post(f"/models/{job.result_version}/promote", json={**body, "dry_run": True}).json()
    assert again["gate"]["verdict"] == "unknown"


def test_job_that_compared_its_version_has_the_items_of_the_other_one_too(
    evaluations: Evaluations, winoground: str, tmp_path: Path
) -> None:
    training = evaluations.dataset(save_coco(tmp_path / "pairs").parent, "pairs")
    asked: dict[str, Any] = {"promote": "if_better", "alias": "trial", "validation_data": training}
    job = evaluations.finetuning(training, ("winoground", winoground), name="job", **asked)
    base = evaluations.evaluation("winoground", winoground)
    found = evaluations.get(f"/jobs/{job.id}/comparison")
    assert found == evaluations.get(f"/jobs/{job.id}/comparison", **{"with": base})
    assert job.result is not None
    gain = job.result["promotion"]["winoground"][f"winoground ({winoground})"]["group_match"]
    assert found["outcomes"]["group_match"]["p_better"] == gain["p_better"]
    other = [item["other"]["outcomes"] for item in evaluations.items(job.id)]
    assert other == [item["outcomes"] for item in evaluations.items(base)]


def results_of(right: list[bool]) -> Results:
    items = tuple(
        ItemOutcome(str(k), {"acc1": each}, {"acc1": 1.0 if each else -1.0}) for k, each in enumerate(right)
    )
    share = Metric(sum(right) / len(right), 0.0, 1.0, len(right), outcome="acc1")
    return Results("zero-shot", "acc1", "acc1", {"acc1": share}, {}, items, {"data_hash": "1"})


def by_hand(service: Service, results: Results, owner: str = "") -> str:
    """The id of a job that has left these results."""
    config = {"format": 1, "benchmark": "zero-shot", "data": "ds_gone", "model": "demo"}
    job, _ = service.store.jobs.submit(NewJob(JobKind.EVALUATE, {"a": 1}, config, owner=owner))
    _, lease = service.claim(JobKind.EVALUATE)
    path = f"jobs/{job.id}/1/results.json"
    file = service.settings.data_dir / path
    file.parent.mkdir(parents=True)
    write_results(file, results)
    service.store.leases.succeed(lease, result={"files": {"results": path}})
    return job.id


def test_mcnemar_of_a_small_example_by_hand(service: Service) -> None:
    """Of 6 items that changed, 5 became right: P(X >= 5) = (6 + 1) / 64, and twice as much for both sides."""
    before = by_hand(service, results_of([True] * 3 + [False] * 7))
    after = by_hand(service, results_of([True] * 2 + [False] + [True] * 5 + [False] * 2))
    found = service.client.get(f"/jobs/{after}/comparison", params={"with": before}).json()
    outcome = found["outcomes"]["acc1"]
    assert outcome["counts"] == {"both": 2, "gained": 5, "lost": 1, "neither": 2}
    assert outcome["p_better"] == pytest.approx(7 / 64)
    assert outcome["p_two_sided"] == pytest.approx(14 / 64)
    assert (outcome["baseline"], outcome["model"]) == (0.3, 0.7)
    assert outcome["difference"] == pytest.approx(0.4)
    assert outcome["low"] <= 0.4 <= outcome["high"]
    flipped = service.client.get(
        f"/jobs/{after}/items", params={"with": before, "flip": "right_to_wrong"}
    ).json()
    assert [item["id"] for item in flipped["data"]] == ["2"]
    assert flipped["data"][0]["images"] == []


@pytest.mark.parametrize(("benchmark", "make"), [("zero-shot", save_folders), ("retrieval", retrieval)])
def test_other_benchmarks_have_items_pictures_and_comparisons(
    benchmark: str, make: Callable[[Path], object], evaluations: Evaluations, tmp_path: Path
) -> None:
    make(tmp_path / "set")
    data = evaluations.dataset(tmp_path / "set", benchmark)
    before, after = (evaluations.evaluation(benchmark, data, model) for model in (0, 1))
    expected = json.loads(evaluations.file(after).read_text())["items"]
    found = evaluations.items(after, limit=9)
    assert [each["id"] for each in found] == [item["id"] for item in expected]
    samples = {each["id"]: each for each in evaluations.get(f"/datasets/{data}/samples", limit=100)["data"]}
    for each, item in zip(found, expected, strict=True):
        assert each["scores"] is None
        (path,) = each["images"]
        name = item["images"][0]["path"].partition("/files/")[2]
        assert evaluations.service.client.get(path).content == (tmp_path / "set" / name).read_bytes()
    assert len(samples) == len({json.dumps(item["images"]) for item in expected})
    compared = evaluations.get(f"/jobs/{after}/comparison", **{"with": before})
    assert compared["outcomes"].keys() == expected[0]["correct"].keys() | expected[-1]["correct"].keys()


def test_pictures_are_gone_with_their_data_set_and_items_with_the_files(
    evaluations: Evaluations, winoground: str
) -> None:
    client = evaluations.service.client
    job_id = evaluations.evaluation("winoground", winoground)
    path = evaluations.items(job_id)[0]["images"][0]
    assert PIL.Image.open(io.BytesIO(client.get(path, params={"max_side": 16}).content)).size == (16, 16)
    client.delete(f"/datasets/{winoground}")
    assert error_of(client.get(path), 410)["code"] == "picture_gone"
    assert [each["images"] for each in evaluations.items(job_id)] == [[]] * COUNT
    client.delete(f"/jobs/{job_id}")
    for gone in ("items", f"comparison?with={job_id}"):
        assert error_of(client.get(f"/jobs/{job_id}/{gone}"), 404)["code"] == "no_items"


def test_what_does_not_belong_together_is_refused(
    evaluations: Evaluations, winoground: str, tmp_path: Path
) -> None:
    client = evaluations.service.client
    other_data = evaluations.dataset(save_set(tmp_path / "other", 3), "winoground")
    job_id, other = (
        evaluations.evaluation("winoground", data, name=data[3:]) for data in (winoground, other_data)
    )
    for route in ("items", "comparison"):
        error = error_of(client.get(f"/jobs/{job_id}/{route}", params={"with": other}), 422)
        assert (error["code"], error["param"]) == ("not_comparable", "with")
        unknown = client.get(f"/jobs/{job_id}/{route}", params={"with": "job_0"})
        assert error_of(unknown, 404)["code"] == "job_not_found"
    alone = error_of(client.get(f"/jobs/{job_id}/comparison"), 422)
    assert (alone["code"], "Name another job" in alone["message"]) == ("not_comparable", True)
    assert error_of(client.get(f"/jobs/{job_id}/items?flip=same"), 422)["param"] == "flip"
    assert error_of(client.get(f"/jobs/{job_id}/items?outcome=acc1"), 422)["param"] == "outcome"
    assert error_of(client.get(f"/jobs/{job_id}/items?flip=x"), 422)["param"] == "flip"
    training = evaluations.service.finetune()["id"]
    assert error_of(client.get(f"/jobs/{training}/items"), 404)["code"] == "no_items"


def test_row_that_names_a_file_elsewhere_shows_nothing(service: Service) -> None:
    first = by_hand(service, results_of([True]))
    config = {"format": 1, "benchmark": "zero-shot", "data": "ds_gone", "model": "demo"}
    job, _ = service.store.jobs.submit(NewJob(JobKind.EVALUATE, {"a": 2}, config))
    _, lease = service.claim(JobKind.EVALUATE)
    service.store.leases.succeed(lease, result={"files": {"results": f"jobs/{first}/1/results.json"}})
    assert error_of(service.client.get(f"/jobs/{job.id}/items"), 409)["code"] == "files_outside"


def test_damaged_results_are_said_to_be(service: Service) -> None:
    job_id = by_hand(service, results_of([True]))
    file = service.settings.data_dir / f"jobs/{job_id}/1/results.json"
    file.write_text(file.read_text()[:-40])
    assert error_of(service.client.get(f"/jobs/{job_id}/items"), 404)["code"] == "no_items"


def test_job_is_compared_with_one_of_another_key_by_an_administrator_alone(keyed: Keyed) -> None:
    mine = by_hand(keyed.service, results_of([True, False]), "alice")
    others = by_hand(keyed.service, results_of([False, True]), "bob")
    for route in ("items", "comparison"):
        assert keyed.ask("alice", "GET", f"/jobs/{mine}/{route}?with={mine}").status_code == 200
        path = f"/jobs/{mine}/{route}?with={others}"
        assert [keyed.ask(key, "GET", path).status_code for key in ("alice", "root")] == [404, 200]

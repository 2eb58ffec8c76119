"""POST /finetune: what is accepted, what is refused and why, and that nothing is refused too late."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.jobs.model_resolver import ModelResolver
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.store.records import NewJob, NewVersion
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints import references
from sds_clip.models.clip.model import Clip
from tests.app.jobs.conftest import Service, error_of
from tests.databases import on_both
from tests.teachers import save_sdxl_teacher


@on_both
def test_job_is_accepted_with_its_place_and_every_default(service: Service, small_clip: Clip) -> None:
    training = service.ready_dataset()

    own = {"seed": 3, "suffix": "mine", "metadata": {"who": "me"}}
    answer = service.submit(training_data=training, hyperparameters={"steps": 7, "lambda": 0.5}, **own)

    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["status"], job["kind"], job["attempt"]) == ("queued", "finetune", 0)
    assert (job["seed"], job["suffix"], job["metadata"]) == (3, "mine", {"who": "me"})
    # `default` is an alias from the start, and stands as the version that it points to.
    assert (job["base"], job["teacher"], job["training_data"]) == (small_clip.version, "demo", training)
    assert (job["objective"], job["promote"], job["alias"]) == ("sds-clip", "never", "default")
    hyperparameters = job["hyperparameters"]
    assert (hyperparameters["steps"], hyperparameters["sds_weight"]) == (7, 0.5)
    assert (hyperparameters["lr"], hyperparameters["batch_size"]) == (1e-4, 64)
    assert not hyperparameters.keys() & {"data", "device", "workers", "caption_cache"}


def test_worker_reads_what_was_asked_for(service: Service) -> None:
    job = service.finetune(hyperparameters={"epochs": 2.5, "batch_size": 8}, seed=5)

    claimed, _ = service.claim()
    spec = FinetuneSpec.read(claimed.config)
    assert claimed.id == job["id"]
    assert (spec.hyperparameters.epochs, spec.hyperparameters.batch_size, spec.seed) == (2.5, 8, 5)


def test_weight_of_the_teacher_s_loss_is_written_out(service: Service) -> None:
    """Another release may have another default, and the release before knew no empty one."""
    for objective, weight in (("sds-clip", 1.0), ("condition", 200.0), ("noise-contrast", 1.0)):
        job = service.finetune(objective=objective, teacher="demo")
        assert job["hyperparameters"]["sds_weight"] == weight


def test_share_of_bad_samples_that_the_data_were_accepted_with_holds_for_the_run(service: Service) -> None:
    added = service.store.datasets.add(name="new", format="pairs", source={"max_bad_share": 0.25})
    service.accept(added)

    assert service.finetune(training_data=added.id)["hyperparameters"]["max_bad_share"] == 0.25


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"nonsense": 1}, "invalid_request", "nonsense"),
        ({"hyperparameters": {"steps": 10, "learning_rate": 1}}, "invalid_request", "hyperparameters.learning_rate"),
        ({"hyperparameters": {"steps": 10, "data": "/etc"}}, "invalid_request", "hyperparameters.data"),
        ({"hyperparameters": {"steps": 10, "device": "cuda:7"}}, "invalid_request", "hyperparameters.device"),
        ({"hyperparameters": {"steps": 0}}, "invalid_request", "hyperparameters.steps"),
        ({"hyperparameters": {"steps": True}}, "invalid_request", "hyperparameters.steps"),
        ({"hyperparameters": {"steps": "3"}}, "invalid_request", "hyperparameters.steps"),
        ({"hyperparameters": {"steps": 2, "lr": "0.1"}}, "invalid_request", "hyperparameters.lr"),
        (
            {"hyperparameters": {"steps": 2, "activation_checkpointing": 1}},
            "invalid_request", "hyperparameters.activation_checkpointing",
        ),
        ({"hyperparameters": {"steps": 10, "lr": -1}}, "invalid_request", "hyperparameters.lr"),
        ({"hyperparameters": {"steps": 10, "t_min": 2}}, "invalid_request", "hyperparameters.t_min"),
        ({"hyperparameters": {"steps": 10**12}}, "invalid_request", "hyperparameters.steps"),
        ({"hyperparameters": {"steps": 10, "batch_size": 2000}}, "invalid_request", "hyperparameters.batch_size"),
        ({"hyperparameters": {"epochs": 10**9}}, "invalid_request", "hyperparameters.epochs"),
        ({"hyperparameters": {}}, "invalid_configuration", "hyperparameters"),
        ({"hyperparameters": {"steps": 1, "epochs": 1}}, "invalid_configuration", "hyperparameters"),
        ({"hyperparameters": {"steps": 1, "t_min": 0.9, "t_max": 0.1}}, "invalid_configuration", "hyperparameters"),
        (
            {"hyperparameters": {"steps": 1, "trainable": "lora", "lora_rank": 193}},  # the demo model is 192 wide
            "invalid_configuration", "hyperparameters",
        ),
        (
            {"hyperparameters": {"steps": 1, "trainable": "lora", "lora_targets": "norms"}},
            "invalid_request", "hyperparameters.lora_targets",
        ),
        ({"objective": "magic"}, "invalid_request", "objective"),
        ({"objective": "score"}, "invalid_configuration", "hyperparameters"),
        ({"teacher": None}, "invalid_configuration", "teacher"),
        ({"promote": "if_better"}, "invalid_configuration", "evaluate"),
        ({"seed": -1}, "invalid_request", "seed"),
        ({"alias": "a b"}, "invalid_request", "alias"),
        ({"alias": "f" * 64}, "invalid_alias", "alias"),
        ({"alias": "status"}, "invalid_alias", "alias"),
        ({"alias": "demo"}, "invalid_alias", "alias"),
        ({"suffix": "../x"}, "invalid_request", "suffix"),
        ({"metadata": {"a": "b" * 513}}, "invalid_request", "metadata.a"),
        ({"thresholds": {"max_p": 2}}, "invalid_request", "thresholds.max_p"),
        ({"evaluate": [{"benchmark": "magic", "data": "ds_1"}]}, "invalid_request", "evaluate[0].benchmark"),
        ({"base": "ViT-B-32/openai"}, "model_not_allowed", "base"),
        ({"base": "/etc/passwd"}, "model_not_allowed", "base"),
        ({"base": "hf-hub:evil/model"}, "model_not_allowed", "base"),
        ({"base": "evil.pt"}, "model_not_allowed", "base"),
        ({"base": "0" * 64}, "unusable_record", "base"),
        ({"teacher": "stabilityai/stable-diffusion-2-1"}, "model_not_allowed", "teacher"),
        ({"teacher": "/data/teacher"}, "model_not_allowed", "teacher"),
        ({"training_data": "ds_unknown"}, "unusable_record", "training_data"),
        ({"training_data": "../../etc"}, "invalid_request", "training_data"),
        ({"validation_data": "ds_unknown"}, "unusable_record", "validation_data"),
        ({"evaluate": [{"benchmark": "winoground", "data": "ds_unknown"}]}, "unusable_record", "evaluate"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_at_once_and_leaves_no_job(
    refusing: Service, fields: dict[str, Any], code: str, param: str | None
) -> None:
    error = error_of(refusing.submit(**fields), 422)

    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert refusing.client.get("/jobs").json()["data"] == []


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("hyperparameters", "param", "cap"),
    [
        ({"steps": 1_000_000_000, "save_every": 1, "keep_checkpoints": 2}, "steps", 10_000_000),
        ({"steps": 10, "save_every": 1, "keep_checkpoints": 1_000_000_000}, "keep_checkpoints", 20),
        ({"steps": 10, "keep_checkpoints": 21}, "keep_checkpoints", 20),
        ({"steps": 10_000_001}, "steps", 10_000_000),
        ({"steps": 500_001, "log_every": 1}, "log_every", 500_000),
        # 1000 usable samples are 15 batches of 64.
        ({"epochs": 700_000.0}, "epochs", 10_000_000),
    ],
)
def test_what_is_over_a_limit_of_the_operator_is_refused_with_the_limit(
    refusing: Service, hyperparameters: dict[str, Any], param: str, cap: int, dry_run: bool
) -> None:
    body = refusing.request(hyperparameters=hyperparameters, dry_run=dry_run)

    error = error_of(refusing.client.post("/finetune", json=body), 422)

    assert (error["code"], error["param"]) == ("over_limit", f"hyperparameters.{param}")
    assert str(cap) in error["message"]
    assert refusing.client.get("/jobs").json()["data"] == []


def test_limits_themselves_are_allowed_and_are_the_service_s(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("MAX_STEPS", 100), ("MAX_KEEP_CHECKPOINTS", 3), ("MAX_LOG_POINTS", 50)):
        monkeypatch.setattr(f"sds_clip.app.jobs.job_limits.{name}", most)
    service = make_service()
    allowed = {"steps": 100, "keep_checkpoints": 3, "log_every": 2}

    service.finetune(hyperparameters=allowed)

    for option, value in (("steps", 101), ("keep_checkpoints", 4), ("log_every", 1)):
        error = error_of(service.submit(hyperparameters=allowed | {option: value}), 422)
        assert (error["code"], error["param"]) == ("over_limit", f"hyperparameters.{option}")


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"seed": NaN}', "application/json", 422),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"--b--", "multipart/form-data; boundary=b", 415),
    ],
)
def test_body_that_is_no_request_is_refused(
    refusing: Service, content: bytes, content_type: str, status: int
) -> None:
    answer = refusing.client.post("/finetune", content=content, headers={"Content-Type": content_type})

    error_of(answer, status)


@pytest.mark.parametrize(
    ("evaluation", "param", "index", "said"),
    [
        ({"benchmark": "winogrand", "data": "ds_1"}, "evaluate[1].benchmark", None, "choose one of"),
        ({"benchmark": "winoground"}, "evaluate[1].data", None, "is required"),
        ({"benchmark": "winoground", "data": 5}, "evaluate[1].data", None, "must be a string"),
        ({"benchmark": "winoground", "dta": "ds_1"}, "evaluate[1].dta", None, "did you mean data?"),
        ("winoground", "evaluate", 1, "an object with benchmark, data"),
    ],
)
def test_wrong_evaluation_is_told_its_place(
    refusing: Service, evaluation: object, param: str, index: int | None, said: str
) -> None:
    evaluate = [{"benchmark": "winoground", "data": "ds_1"}, evaluation]
    error = error_of(refusing.submit(evaluate=evaluate), 422)
    assert (error["param"], error.get("index")) == (param, index)
    assert said in error["message"]


def test_beginning_of_an_id_is_stored_as_the_id_and_repeats_the_same_job(service: Service) -> None:
    version = "0123abcd" + "0" * 56
    service.store.versions.register(NewVersion(version, None, {"reference": "demo"}, 1))
    body, key = service.request(base="0123abcd"), {"Idempotency-Key": "once"}

    job = service.client.post("/finetune", json=body, headers=key).json()
    other = "0123abcd" + "1" * 56
    service.store.versions.register(NewVersion(other, None, {"reference": "demo"}, 1))

    assert job["base"] == version
    claimed, _ = service.claim()
    assert FinetuneSpec.read(claimed.config).base == version
    assert error_of(service.client.delete(f"/models/{version}"), 409)["code"] == "in_use"
    # The request is the same, whatever its name stands for by now.
    assert service.client.post("/finetune", json=body, headers=key).json()["id"] == job["id"]
    error = error_of(service.client.post("/finetune", json=body), 422)
    assert (error["code"], error["param"]) == ("unusable_record", "base")
    assert version in error["message"]
    assert other in error["message"]
    error = error_of(service.client.post("/finetune", json=body | {"base": "0123abce"}), 422)
    assert error["code"] == "model_not_allowed"


def test_base_may_be_whatever_is_served_or_known_or_allowed(
    make_service: Callable[..., Service], small_reference: str, small_clip: Clip
) -> None:
    service = make_service(allowed_models=["local-dir:/models/mine"])
    for base, found in {
        "default": small_clip.version,
        small_clip.version: small_clip.version,
        "demo": "demo",
        small_reference: small_reference,
        "/models/mine": "local-dir:/models/mine",
    }.items():
        assert service.finetune(base=base)["base"] == found

    # Not the operator's own spelling: what is listed is meant, and nothing that looks like it.
    other = service.request(base="local-dir:/models/../models/mine")
    assert error_of(service.client.post("/finetune", json=other), 422)["code"] == "model_not_allowed"


def test_dry_run_says_what_would_be_done_and_does_nothing(service: Service) -> None:
    body = service.request(hyperparameters={"epochs": 3, "batch_size": 100}, dry_run=True)

    answer = service.client.post("/finetune", json=body, headers={"Idempotency-Key": "k"})

    assert answer.status_code == 200
    result = answer.json()
    assert (result["object"], result["kind"]) == ("dry_run", "finetune")
    assert result["config"]["training_data"] == body["training_data"]
    assert result["config"]["warmup_steps"] == 50
    # 1000 usable samples in batches of 100, three times.
    assert result["estimate"] == {
        "steps": 30, "images": 3000, "seconds": None, "memory_bytes": None, "based_on": None, "jobs_ahead": 0,
    }  # fmt: skip
    assert service.client.get("/jobs").json()["data"] == []


def test_dry_run_counts_the_jobs_of_its_own_kind_that_are_ahead(service: Service) -> None:
    service.finetune()
    submit = service.store.jobs.submit
    submit(NewJob(JobKind.EVALUATE, {}))
    submit(NewJob(JobKind.EVALUATE, {}))

    answer = service.submit(dry_run=True)

    assert answer.json()["estimate"]["jobs_ahead"] == 1


def test_estimate_is_by_the_pace_and_the_memory_of_an_earlier_job_like_it(service: Service) -> None:
    done = service.finetune(hyperparameters={"steps": 10})
    job, lease = service.claim()
    service.store.leases.points(lease, {5: {"peak_memory_mib": 80}, 10: {"peak_memory_mib": 100}})
    service.store.leases.succeed(lease, result={"steps": 10})
    finished = service.store.jobs.get(job.id)
    assert finished.started_at is not None
    assert finished.finished_at is not None

    def tried(**hyperparameters: Any) -> dict[str, Any]:
        body = service.request(hyperparameters={"steps": 30, **hyperparameters}, dry_run=True)
        estimate: dict[str, Any] = service.client.post("/finetune", json=body).json()["estimate"]
        return estimate

    like = tried()
    assert like["based_on"] == done["id"]
    assert like["seconds"] == pytest.approx(3 * (finished.finished_at - finished.started_at))
    assert like["memory_bytes"] == 100 * 2**20
    assert tried(batch_size=32)["based_on"] is None


def test_more_jobs_than_may_be_open_are_turned_away_paused_and_running_ones_counted(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(max_open_jobs=2)
    paused, running = service.finetune(), service.finetune()
    service.client.post(f"/jobs/{paused['id']}/pause")
    job, lease = service.claim()
    assert job.id == running["id"]

    answer = service.submit()

    assert error_of(answer, 429)["code"] == "too_many_jobs"
    assert int(answer.headers["Retry-After"]) > 0
    service.store.leases.succeed(lease, result={})
    service.finetune()


def test_models_lists_the_bases_and_teachers_that_jobs_can_name(
    make_service: Callable[..., Service], small_reference: str
) -> None:
    service = make_service(allowed_models=["ViT-B-32/openai"], allowed_teachers=["demo", "org/teacher"])

    listed = service.client.get("/models").json()

    assert listed["bases"] == [small_reference, "demo", "demo-pictures", "ViT-B-32/openai"]
    assert listed["teachers"] == ["demo", "org/teacher"]


def test_a_demo_model_that_does_not_ship_is_no_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(references, "demo_folder", lambda name: tmp_path / name)
    (tmp_path / "demo").mkdir()

    assert ModelResolver(models=["demo"], allowed=[], teachers=[]).allowed == ["demo"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: None, None),
        (lambda folder: edit(folder, "model_index.json", requires_aesthetics_score=True), "it is a refiner"),
        (lambda folder: edit(folder, "model_index.json", text_encoder_3=["transformers", "T5EncoderModel"]), "mixes"),
        (lambda folder: edit(folder, "scheduler/scheduler_config.json", sigma_data=0.5), "EDM"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler_config.json is missing"),
        (lambda folder: shutil.rmtree(folder / "text_encoder_2"), "contains no weights"),
    ],
)  # fmt: skip
def test_teacher_s_folder_is_read_when_a_job_is_submitted(
    damage: Callable[[Path], object],
    reason: str | None,
    make_service: Callable[..., Service],
    tmp_path: Path,
) -> None:
    folder = save_sdxl_teacher(tmp_path / "xl")
    damage(folder)
    service = make_service(allowed_teachers=["demo", f"local-dir:{folder}"])
    training = service.ready_dataset()

    answer = service.submit(training_data=training, teacher=f"local-dir:{folder}")

    if reason is None:
        assert answer.status_code == 202
    else:
        error = error_of(answer, 422)
        assert (error["code"], error["param"]) == ("unusable_teacher", "teacher")
        assert reason in error["message"]


def edit(folder: Path, file: str, **changes: object) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))


def test_description_says_in_which_section_each_hyperparameter_stands(service: Service) -> None:
    schemas = service.client.get("/openapi.json").json()["components"]["schemas"]
    section_of = {
        name: described["x-section"] for name, described in schemas["Hyperparameters"]["properties"].items()
    }

    assert section_of["steps"] == section_of["sds_batch_size"] == "Length and batches"
    assert section_of["t_min"] == "The teacher's loss"

"""The whole service over a small CLIP and a real database, and a worker's hand on the same database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from httpx import Response
from starlette.testclient import TestClient

from sds_clip.app.edge import middleware
from sds_clip.app.keys import create_key
from sds_clip.app.main import create_app
from sds_clip.app.registry.publish import read_published
from sds_clip.app.settings import Settings
from sds_clip.app.store import Store
from sds_clip.app.store.records import Dataset, Job, Lease, NewVersion
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.verdicts import check_of
from sds_clip.models.clip.model import Clip
from sds_clip.worker.valkey import Valkey
from tests.app.changed import changed
from tests.app.jobs.consoles import SCOPES, Console
from tests.app.serving.swapping import MATCH, publish_tuned
from tests.checks import claimed_check
from tests.databases import Databases

USERS = ("alice", "bob")


@dataclass
class Service:
    """A service, what is behind it, and the store as a worker has it."""

    client: TestClient
    store: Store
    settings: Settings

    def ready_dataset(
        self, format: str = "pairs", *, usable: int = 1000, name: str = "", owner: str = ""
    ) -> str:
        """The id of a data set that was checked."""
        added = self.store.datasets.add(name=name, format=format, source={}, owner=owner)
        self.accept(added, usable)
        return added.id

    def accept(self, added: Dataset, usable: int = 1000) -> None:
        lease = claimed_check(self.store)
        assert lease.job_id == check_of(added.id)
        self.store.datasets.accept(lease, content_hash="0" * 64, counts={"samples": usable, "usable": usable})

    def finetune(self, **fields: Any) -> dict[str, Any]:
        """Submit a job that can be run, and return it."""
        answer = self.client.post("/finetune", json=self.request(**fields))
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def request(self, **fields: Any) -> dict[str, Any]:
        """A request for a fine-tuning job; its data set is made for `owner` if none is given."""
        owner = fields.pop("owner", "")
        training = fields.get("training_data") or self.ready_dataset(owner=owner)
        return {
            "teacher": "demo",
            "hyperparameters": {"steps": 10},
            **fields,
            "training_data": training,
        }

    def begin(self, **fields: Any) -> tuple[str, Lease]:
        """A fine-tuning job that runs."""
        job = self.finetune(**fields)
        _, lease = self.claim()
        assert lease.job_id == job["id"]
        return lease.job_id, lease

    def submit(self, **fields: Any) -> Response:
        """The answer to a request for a fine-tuning job."""
        return cast(Response, self.client.post("/finetune", json=self.request(**fields)))

    def evaluate(self, **fields: Any) -> Response:
        """The answer to a request for an evaluation; its data set is made if none is given."""
        body = {"model": "demo", "benchmark": "winoground", **fields}
        body["data"] = fields.get("data") or self.ready_dataset(body["benchmark"])
        return cast(Response, self.client.post("/evaluate", json=body))

    def claim(self, kind: JobKind = JobKind.FINETUNE) -> tuple[Job, Lease]:
        job = self.store.leases.claim(kind, "slot", 60)
        assert job is not None
        return job, Lease.of(job)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "broker") as started:
        yield started


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The folder below which data sets may be registered."""
    folder = tmp_path / "roots"
    folder.mkdir()
    return folder


def published(service: Service, base: Clip, scratch: Path, seed: int, result: Any, **described: Any) -> str:
    """The version that the oldest job that waits has made, over the base that is served."""
    root = service.settings.data_dir / "versions"
    version = publish_tuned(root, base, scratch, seed=seed)
    found = read_published(root / version, version)
    _, lease = service.claim()
    row = NewVersion(
        version,
        f"versions/{version}",
        {**found.description, **described},
        found.size_bytes,
        base=base.reference,
        base_version=base.version,
    )
    service.store.leases.succeed(lease, version=row, result=result)
    return version


@contextmanager
def running(clip: Clip, **values: Any) -> Iterator[Service]:
    """The service with some settings. A busy machine makes no key wait for its share of time."""
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(middleware, "SHARE_OF_TIME", 100.0)
        settings = stack.enter_context(changed(**{"threads": 1, "max_body_bytes": 2**20, **values}))
        app = create_app(settings, {"small": clip})
        client = stack.enter_context(TestClient(app, base_url="http://localhost"))
        # If each read the server's clock, a job could be due a moment after the worker looks for it.
        store = Store(str(settings.database_url), clock=app.state.backend._store.now)
        stack.callback(store.close)
        yield Service(client, store, settings)


@pytest.fixture
def make_service(
    tmp_path: Path, roots: Path, database_url: str, small_member: Clip
) -> Iterator[Callable[..., Service]]:
    """Starts a service with some settings changed, and ends it after the test."""
    with ExitStack() as services:

        def make(**changed: Any) -> Service:
            values = {"data_dir": tmp_path / "data", "database_url": database_url, "dataset_roots": [roots]}
            return services.enter_context(running(small_member, **{**values, **changed}))

        yield make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


@dataclass
class Keyed:
    """A service with a key for each of two users, and one for an administrator."""

    service: Service
    keys: dict[str, str]
    scratch: Path
    clip: Clip

    def ask(self, key: str, method: str, path: str, **request: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.keys[key]}", **request.pop("headers", {})}
        answer = self.service.client.request(method, path, headers=headers, **request)
        assert answer.status_code != 500, answer.text
        return cast(Response, answer)

    def dataset(self, owner: str, format: str = "pairs") -> str:
        return self.service.ready_dataset(format, owner=owner)

    def job(self, owner: str, **fields: Any) -> str:
        body = self.service.request(owner=owner, **fields)
        answer = self.ask(owner, "POST", "/finetune", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def version(self, owner: str, *, seed: int = 0) -> str:
        """A version that a job of the owner made over the base that is served."""
        self.job(owner)
        return published(self.service, self.clip, self.scratch / f"{owner}{seed}", seed, {"steps": 1})

    def evaluation(self, owner: str) -> str:
        """An evaluation that succeeded and left a report."""
        body = {"model": "demo", "benchmark": "winoground", "data": self.dataset(owner, "winoground")}
        job_id = str(self.ask(owner, "POST", "/evaluate", json=body).json()["id"])
        path = f"jobs/{job_id}/1/report.html"
        file = self.service.settings.data_dir / path
        file.parent.mkdir(parents=True)
        file.write_text("<p></p>")
        _, lease = self.service.claim(JobKind.EVALUATE)
        self.service.store.leases.succeed(lease, result={"files": {"report": path}})
        return job_id

    def served(self) -> set[str]:
        """The names under which something answers."""
        return {model["name"] for model in self.ask("root", "GET", "/models").json()["models"]}

    def give(self, alias: str, owner: str, version: str) -> None:
        """Give an alias to a key, as an administrator."""
        body = {"alias": alias, "owner": owner, "reason": "hers", "force": True}
        answer = self.ask("root", "POST", f"/models/{version}/promote", json=body)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def make_keyed(
    make_service: Callable[..., Service], tmp_path: Path, small_clip: Clip
) -> Callable[..., Keyed]:
    def make(**changed: Any) -> Keyed:
        file = tmp_path / "keys.json"
        keys = {name: create_key(file, name, ["infer", "train"]) for name in USERS}
        keys["root"] = create_key(file, "root", ["infer", "train", "admin"])
        values = {"keys_file": file, "swap_poll_s": 0.02, "precision": "float32", **changed}
        return Keyed(make_service(**values), keys, tmp_path / "scratch", small_clip)

    return make


@pytest.fixture
def keyed(make_keyed: Callable[..., Keyed]) -> Keyed:
    return make_keyed()


@pytest.fixture
def make_console(
    make_service: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Console]:
    def make(**changed: Any) -> Console:
        monkeypatch.setattr("sds_clip.app.keys.RECHECK_S", 0.0)
        monkeypatch.setattr("sds_clip.app.routes.session.WRONG_KEY_WAIT_S", 0.0)
        file = tmp_path / "keys.json"
        by_name = {name: create_key(file, name, scopes) for name, scopes in SCOPES.items()}
        return Console(make_service(keys_file=file, **changed), file, by_name)

    return make


@pytest.fixture
def console(make_console: Callable[..., Console]) -> Console:
    return make_console()


@pytest.fixture(scope="session")
def refusing(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: Databases, small_clip: Clip
) -> Iterator[Service]:
    """A service for many tests, none of which changes anything that another one looks at."""
    data_dir = tmp_path_factory.mktemp("refusing")
    database_url = sqlite_databases.url(sqlite_databases.migrated())
    with running(small_clip, data_dir=data_dir, database_url=database_url) as service:
        yield service


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The error of an answer that has the one error body and a status."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    return error


@dataclass
class Quick(Service):
    """A service that looks at its aliases often, and the versions that jobs make over its base."""

    clip: Clip
    scratch: Path

    @property
    def base(self) -> str:
        return self.clip.version

    def publish(self, *, seed: int = 0, result: Any = None) -> str:
        self.finetune()
        measured = {"evaluations": {"winoground (ds_1)": {"metrics": {"group": 0.25}}}}
        return published(self, self.clip, self.scratch / str(seed), seed, result, **measured)

    def folder(self, version: str) -> Path:
        return self.settings.data_dir / "versions" / version

    def promote(self, version: str, **body: Any) -> Response:
        body = {"reason": "it is better", **body}
        return cast(Response, self.client.post(f"/models/{version}/promote", json=body))

    def match(self, **body: Any) -> Response:
        return cast(Response, self.client.post("/match", json={**MATCH, **body}))

    def served(self) -> str:
        """The version that answers."""
        return str(self.match().json()["model"]["version"])


@pytest.fixture
def quick(make_service: Callable[..., Service], small_clip: Clip, tmp_path: Path) -> Quick:
    service = make_service(swap_poll_s=0.02, precision="float32")
    return Quick(service.client, service.store, service.settings, small_clip, tmp_path)

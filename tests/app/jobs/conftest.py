"""The whole service over a small CLIP and a real database, and a worker's hand on the same database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.store import Store
from app.store.records import Dataset, Job, Lease
from app.store.states import JobKind
from models.clip import Clip
from tests.databases import Databases


@dataclass
class Service:
    """A service, what is behind it, and the store as a worker has it."""

    client: TestClient
    store: Store
    settings: Settings

    def ready_dataset(
        self, format: str = "pairs", *, usable: int = 1000, name: str = "set", owner: str = ""
    ) -> str:
        """The id of a data set that was checked."""
        added = self.store.datasets.add(name=name, format=format, source={}, owner=owner)
        self.accept(added, usable)
        return added.id

    def accept(self, added: Dataset, usable: int = 1000) -> None:
        claimed = self.store.datasets.claim_check("checker", 60)
        assert claimed is not None
        assert claimed.id == added.id
        self.store.datasets.accept(
            claimed, content_hash="0" * 64, counts={"samples": usable, "usable": usable}
        )

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

    def claim(self, kind: JobKind = JobKind.FINETUNE) -> tuple[Job, Lease]:
        job = self.store.leases.claim(kind, "slot", 60)
        assert job is not None
        return job, Lease.of(job)


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The folder below which data sets may be registered."""
    folder = tmp_path / "roots"
    folder.mkdir()
    return folder


@contextmanager
def running(clip: Clip, **values: Any) -> Iterator[Service]:
    """The service with some settings."""
    settings = Settings(**{"decode_threads": 1, "max_body_bytes": 2**20, **values})
    with TestClient(create_app(settings, {"small": clip}), base_url="http://localhost") as client:
        store = Store(str(settings.database_url))
        yield Service(client, store, settings)
        store.close()


@pytest.fixture
def make_service(
    tmp_path: Path, roots: Path, database_url: str, small_clip: Clip
) -> Iterator[Callable[..., Service]]:
    """Starts a service with some settings changed, and ends it after the test."""
    with ExitStack() as services:

        def make(**changed: Any) -> Service:
            values = {"data_dir": tmp_path / "data", "database_url": database_url, "dataset_roots": [roots]}
            return services.enter_context(running(small_clip, **{**values, **changed}))

        yield make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


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

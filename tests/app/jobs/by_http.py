"""What a caller sends to a service beside which a real worker runs."""

import json
from typing import Any

from sds_clip.app.settings import Settings
from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus
from sds_clip.worker.config import WorkerConfig
from tests.app.conftest import png
from tests.app.datasets.archives import tar_of
from tests.app.jobs.conftest import Keyed


def worker_beside(settings: Settings, **changes: Any) -> WorkerConfig:
    """A worker for the service's fine-tuning jobs."""
    given: dict[str, Any] = {"queue": "finetune", "device": "cpu", "threads": 1, "keep_warm": False}
    return WorkerConfig(
        broker_url=str(settings.broker_url),
        database_url=str(settings.database_url),
        data_dir=settings.data_dir,
        **given | changes,
    )


def pairs(count: int = 4) -> bytes:
    """An archive of pictures with captions."""
    lines = [{"file_name": f"{number}.png", "text": f"picture {number}"} for number in range(count)]
    pictures = {line["file_name"]: png(seed=number) for number, line in enumerate(lines)}
    return tar_of({**pictures, "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()})


def upload(keyed: Keyed, key: str, data: bytes) -> str:
    answer = keyed.ask(key, "POST", "/datasets", data={"format": "pairs"}, files={"file": ("a.tar", data)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def is_ready(store: Store, dataset: str) -> bool:
    found = store.datasets.get(dataset)
    assert found.status is not DatasetStatus.REJECTED, found
    return found.status is DatasetStatus.READY


def submit(keyed: Keyed, key: str, base: str, data: str, *, devices: int = 1, **options: Any) -> str:
    """Submit a fine-tuning job without a teacher."""
    options = {"batch_size": 4, "warmup_steps": 1, "precision": "float32", **options}
    body = {
        "base": base,
        "objective": "clip",
        "training_data": data,
        "hyperparameters": options,
        "devices": devices,
    }
    answer = keyed.ask(key, "POST", "/finetune", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])

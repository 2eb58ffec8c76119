"""Versions and data in a running service, as its workers would have made them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from sds_clip.app.registry.publish import read_published
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease, NewVersion
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.serving.swapping import publish_tuned
from tests.checks import claimed_check


def add_data(
    store: Store, *, name: str = "", format: str = "pairs", owner: str = "", samples: int = 1000
) -> str:
    """The id of a data set whose check has passed."""
    data = store.datasets.add(name=name, format=format, source={}, owner=owner)
    store.datasets.accept(
        claimed_check(store), content_hash="0" * 64, counts={"samples": samples, "usable": samples}
    )
    return data.id


class Registry:
    """A running service, the store behind it, and the model that it was started with."""

    def __init__(self, url: str, folder: Path, base: str, headers: Mapping[str, str] | None = None) -> None:
        self.client = httpx.Client(base_url=url, headers=headers)
        self.store = Store(f"sqlite:///{folder}/jobs.db")
        self.base = load_clip(base, device="cpu", precision="float32")
        self._versions = folder / "data" / "versions"
        self._scratch = folder / "scratch"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.store.close()

    def make(
        self,
        seed: int,
        *,
        base: str | None = None,
        owner: str = "",
        evaluations: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """The version that a job of the owner made from the base, or from one of these versions."""
        clip = self.base if base is None else self._load(base)
        self._submit(owner, fields)
        job = self.store.leases.claim(JobKind.FINETUNE, "slot", 60)
        assert job is not None
        version = publish_tuned(self._versions, clip, self._scratch / str(seed), seed=seed, job=job.id)
        found = read_published(self._versions / version, version)
        row = NewVersion(
            version,
            f"versions/{version}",
            {**found.description, "evaluations": dict(evaluations or {})},
            found.size_bytes,
            base=clip.reference if base is None else base,
            base_version=clip.version,
        )
        self.store.leases.succeed(Lease.of(job), version=row, result=dict(result or {"steps": 10}))
        return version

    def promote(self, version: str, alias: str = "default", **body: Any) -> None:
        answer = self.client.post(
            f"/models/{version}/promote", json={"alias": alias, "reason": "a start", **body}
        )
        assert answer.status_code == 200, answer.text

    def served(self, name: str = "default") -> str:
        """The version that a request gets that names a model."""
        models = self.client.get("/models").json()["models"]
        return next(str(model["version"]) for model in models if model["name"] == name)

    def audit(self) -> list[tuple[str, str]]:
        """What was done to aliases and why, newest first."""
        return [
            (line["action"], line["why"]) for line in self.client.get("/promotions?limit=100").json()["data"]
        ]

    def _load(self, version: str) -> Clip:
        return load_clip(f"local-dir:{self._versions / version}", device="cpu", precision="float32")

    def _submit(self, owner: str, fields: Mapping[str, Any]) -> None:
        data = add_data(self.store, owner=owner)
        body = {"teacher": "demo", "hyperparameters": {"steps": 10}, **fields, "training_data": data}
        answer = self.client.post("/finetune", json=body)
        assert answer.status_code == 202, answer.text

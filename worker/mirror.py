"""A copy of versions and aliases in MLflow's model registry, which follows the database."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.paging import MAX_LIMIT
from sds_clip.app.store.records import Alias, Version, VersionStatus
from sds_clip.models.training.mlflow_runs import experiment_id, mlflow_client, run_of
from sds_clip.worker.identity import owner_name

logger = logging.getLogger(__name__)

MIRROR_EVERY_S = 10.0
MODEL = "sds-clip"
"""The registered model. Each of our versions is one of its versions, under a number of MLflow's."""
VERSION, STATUS = "sds_clip.version", "sds_clip.status"
"""The tags with the version's id and with what became of it."""

_LEASE, _TTL_S = "mlflow", 300.0


class Mirror:
    """Brings MLflow up to date at each `look`, in one worker at a time.

    It compares the database with what MLflow has, so that it catches up with whatever it has missed. Nothing else
    waits for it or fails with it.
    """

    def __init__(self, store: Store, role: str) -> None:
        self._store = store
        self._owner = owner_name(os.getpid(), role)
        self._copied: object = None
        self._fails = False

    def look(self) -> None:
        """Copy what has changed. Raises StoreUnavailable."""
        if not self._store.retention.claim_sweep(self._owner, _TTL_S, name=_LEASE):
            self._copied = None  # another worker's copy may be newer
            return
        versions, aliases = tuple(self._versions()), self._store.aliases.ever()
        state = [(version.id, version.status) for version in versions], aliases
        if state == self._copied:
            return
        try:
            _copy(versions, aliases)
        except StoreUnavailable:
            raise
        except Exception as error:
            if not self._fails:
                logger.warning(
                    "Versions and aliases cannot be copied to MLflow now; this is tried again every %g s (%s: %s).",
                    MIRROR_EVERY_S, type(error).__name__, str(error).strip().partition("\n")[0],
                )  # fmt: skip
            self._fails = True
        else:
            self._copied, self._fails = state, False

    def release(self) -> None:
        """Let another worker go on at once."""
        with contextlib.suppress(StoreUnavailable):
            self._store.retention.release_sweep(self._owner, name=_LEASE)

    def _versions(self) -> Iterator[Version]:
        """All versions, newest first."""
        after = None
        while True:
            found = self._store.versions.list(status=None, after=after, limit=MAX_LIMIT)
            yield from found.items
            if not found.has_more:
                return
            after = found.items[-1].id


def _copy(versions: tuple[Version, ...], aliases: tuple[Alias, ...]) -> None:
    client = mlflow_client()
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        model = client.create_registered_model(
            MODEL, description="Versions of SDS-CLIP, as its database has them."
        )
    known = {each.tags[VERSION]: each for each in _known(client)}
    for version in reversed(versions):
        if version.id not in known and version.status is VersionStatus.READY:
            known[version.id] = _create(client, version)
        elif version.id in known and known[version.id].tags.get(STATUS) != version.status:
            client.set_model_version_tag(MODEL, known[version.id].version, STATUS, version.status)
    living = [alias for alias in aliases if alias.removed_at is None]
    numbers = {alias_in_mlflow(alias.name): known[alias.version].version for alias in living}
    for name, number in numbers.items():
        if str(model.aliases.get(name)) != str(number):
            client.set_registered_model_alias(MODEL, name, number)
    for name in {alias_in_mlflow(alias.name) for alias in aliases} & model.aliases.keys() - numbers.keys():
        client.delete_registered_model_alias(MODEL, name)


def _known(client: Any) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{MODEL}'", page_token=token)
        yield from (each for each in page if VERSION in each.tags)
        token = page.token
        if not token:
            return


def _create(client: Any, version: Version) -> Any:
    run = None if version.job_id is None else run_of(client, experiment_id(), version.job_id)
    return client.create_model_version(
        MODEL,
        # MLflow's server refuses paths of another machine. The service sends the files: `sds-clip models download`.
        source=f"sds-clip://versions/{version.id}",
        run_id=None if run is None else run.info.run_id,
        tags={VERSION: version.id, STATUS: version.status, **_lineage(version)},
        description="\n".join(_figures(version.description)),
        await_creation_for=None,
    )


def _lineage(version: Version) -> dict[str, str]:
    about = version.description.get("data") or {}
    lineage = {
        "job": version.job_id,
        "base": version.base,
        "base_version": version.base_version,
        "teacher_version": about.get("teacher_version"),
        "data_hash": about.get("data_hash"),
    }
    return {f"sds_clip.{name}": str(value) for name, value in lineage.items() if value is not None}


def _figures(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line of Markdown for each figure."""
    for name, results in (description.get("evaluations") or {}).items():
        for figure, metric in results["metrics"].items():
            interval = f"95 % interval {metric['low']:.4f} to {metric['high']:.4f}, {metric['n']} items"
            yield f"- {name}: {figure} {metric['value']:.4f} ({interval})"
    for name, value in (description.get("metrics") or {}).items():
        yield f"- {name}: {value:.4f}"


def alias_in_mlflow(name: str) -> str:
    """Return the alias's name in MLflow, which allows no dots, and not `latest` or `v1`."""
    allowed = name.replace(".", "_")
    return f"alias_{allowed}" if re.fullmatch(r"latest|v\d+", allowed, re.IGNORECASE) else allowed

"""The client and its jobs."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from sds_clip.client import calls, connection, inference, schemas
from sds_clip.client._async.http import AsyncHttp
from sds_clip.client.errors import ConnectionFailed, Unavailable, WaitTimeout
from sds_clip.client.images import ImageLike
from sds_clip.client.record import JobRecord, Progress
from sds_clip.client.upload import UploadFile, in_utf_8
from sds_clip.client.waiting import async_sleep, in_thread


class AsyncClient:
    """A client of the service at `url`, with the API key `api_key`.

    The defaults are the environment variables SDS_CLIP_URL and SDS_CLIP_API_KEY.

    Images are paths, URLs, data URIs, bytes, file objects, PIL images or uint8 arrays. A list may be longer than the
    service accepts in one request: it is sent in several requests, and their answers are joined. Answers are the API's
    own JSON; `sds_clip.client.schemas` has their types and those of the keyword arguments.

    Every failure raises a `ClientError`. Idempotent calls are tried up to `max_attempts` times first. Following a
    job survives lost connections. Threads and tasks may share a client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = connection.TIMEOUT_S,
        max_attempts: int = connection.MAX_ATTEMPTS,
    ) -> None:
        self._http = AsyncHttp(url, api_key, timeout_s, max_attempts)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    @overload
    async def match(
        self, images: Iterable[ImageLike], texts: Iterable[str], **options: Unpack[schemas.MatchOptions]
    ) -> schemas.MatchResponse: ...
    @overload
    async def match(
        self,
        images: Iterable[ImageLike],
        texts: Iterable[str],
        **options: Unpack[schemas.MatchComparisonOptions],
    ) -> schemas.MatchComparison: ...
    async def match(self, images: Iterable[ImageLike], texts: Iterable[str], **options: Any) -> Any:
        """Score every text against every image.

        With `models`, a list of up to 16 names, `answers` has the answer of each, or its error (POST /match/compare).
        """
        return await self._http.run(inference.match(images, texts, options))

    @overload
    async def classify(
        self,
        images: Iterable[ImageLike],
        labels: Iterable[str] | str,
        **options: Unpack[schemas.ClassifyOptions],
    ) -> schemas.ClassifyResponse: ...
    @overload
    async def classify(
        self,
        images: Iterable[ImageLike],
        labels: Iterable[str] | str,
        **options: Unpack[schemas.ClassifyComparisonOptions],
    ) -> schemas.ClassifyComparison: ...
    async def classify(self, images: Iterable[ImageLike], labels: Iterable[str] | str, **options: Any) -> Any:
        """Find the labels that fit each image best. `models` is as in `match`."""
        return await self._http.run(inference.classify(images, labels, options))

    async def embed(
        self,
        images: Iterable[ImageLike] | None = None,
        *,
        texts: Iterable[str] | None = None,
        **options: Unpack[schemas.EmbedOptions],
    ) -> schemas.EmbedResponse:
        """Encode images or texts."""
        return await self._http.run(inference.embed(images, texts, options))

    async def models(
        self, *, after: str | None = None, limit: int = 20, **filters: Unpack[schemas.ModelFilters]
    ) -> schemas.ModelsAndVersions:
        """Return the served models, the aliases, and a page of versions, newest first.

        `name` is the beginning of the id or of an alias, `base` an id or its beginning, and `metadata` a list of
        "key:value" that the job that made the version has.
        """
        return await self._http.json(calls.page("/models", after=after, limit=limit, **filters))

    async def model(self, version: str) -> schemas.VersionDetail:
        """Return a version by its id, the beginning of it or an alias."""
        return await self._http.json(calls.get("models", version))

    @overload
    async def promote(
        self,
        version: str,
        *,
        reason: str,
        alias: str = "default",
        dry_run: Literal[False] | None = None,
        **options: Unpack[schemas.PromoteOptions],
    ) -> schemas.MovedAlias: ...
    @overload
    async def promote(
        self,
        version: str,
        *,
        reason: str,
        alias: str = "default",
        dry_run: Literal[True],
        **options: Unpack[schemas.PromoteOptions],
    ) -> schemas.PromotionPlan: ...
    async def promote(self, version: str, *, reason: str, alias: str = "default", **options: Any) -> Any:
        """Point an alias to a version.

        With `wait_s`, the answer comes once every live serving process serves the version or says that it cannot, or
        after that many seconds. `served_by_all` says whether all serve it, and `processes` the state of each.

        With `dry_run`, nothing is moved. The answer says what would happen (`moves`, `error`) and whether the version
        is better than the one in service (`gate`).
        """
        return await self._http.json(calls.promote(version, {"alias": alias, "reason": reason, **options}))

    async def rollback(
        self, alias: str = "default", *, reason: str, **options: Unpack[schemas.RollbackOptions]
    ) -> schemas.MovedAlias:
        """Point an alias back to the version before its last promotion. `wait_s` is as in `promote`."""
        # A second call moves the alias again.
        body = {"reason": reason, **options}
        return await self._http.json(calls.post("models", alias, "rollback", json=body, repeatable=False))

    async def remove_alias(
        self, alias: str, *, reason: str, **options: Unpack[schemas.RemoveOptions]
    ) -> schemas.AliasInfo:
        """Remove an alias. Its version stays. It is no error if it was removed before."""
        return await self._http.json(
            calls.post("models", alias, "remove", json={"reason": reason, **options})
        )

    async def lock(self, alias: str = "default", *, reason: str) -> schemas.AliasInfo:
        """Keep an alias where it is, until it is unlocked. An alias that is locked keeps its first lock."""
        return await self._http.json(calls.post("models", alias, "lock", json={"reason": reason}))

    async def unlock(self, alias: str = "default", *, reason: str) -> schemas.AliasInfo:
        """Let an alias be moved again. It is no error if it is not locked."""
        return await self._http.json(calls.post("models", alias, "unlock", json={"reason": reason}))

    async def promotions(self, *, alias: str | None = None, limit: int = 20) -> list[schemas.PromotionInfo]:
        """List who moved, locked, removed or gave away which alias, when and why, newest first."""
        return await self._http.run(calls.items("/promotions", limit, alias=alias))

    async def delete_model(self, version: str) -> None:
        """Delete a version that is not in use."""
        await self._http.send(calls.delete("models", version))

    async def download(self, version: str, file: str | os.PathLike[str], *, full: bool = False) -> Path:
        """Download a version as a tar file.

        The file appears when it is complete, and its folder is created if needed. With `full`, a delta is
        downloaded as whole weights.
        """
        call = calls.get("models", version, "download", weights="full" if full else None)
        return await self._http.download(call, Path(file))

    def model_log(self, version: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the log records of the run that made a version."""
        return self._http.records(calls.get("models", version, "log"))

    async def upload_dataset(
        self,
        path: str | os.PathLike[str],
        *,
        format: str,
        name: str | None = None,
        max_bad_share: float = 0.0,
    ) -> schemas.DatasetInfo:
        """Upload a data set: an archive, or a folder, which is packed while it is sent.

        Every call that takes the data set's id also takes its `name`, which none of your other data sets may have.
        The service checks the data in the background. Pairs or items that cannot be used are left out, up to the
        share `max_bad_share`.
        """
        fields = {"format": format, "max_bad_share": str(max_bad_share)}
        if name is not None:
            fields["name"] = in_utf_8(name, "give another name")
        return await self._http.upload(fields, await in_thread(UploadFile, path))

    async def register_dataset(
        self,
        source: str,
        *,
        format: str,
        name: str | None = None,
        **options: Unpack[schemas.RegisterOptions],
    ) -> schemas.DatasetInfo:
        """Register data that are already on the server; nothing is copied."""
        body = {"source": source, "format": format, "name": name, **options}
        # A second call makes a second data set.
        return await self._http.json(calls.post("datasets", json=body, repeatable=False))

    async def datasets(
        self, *, limit: int = 20, **filters: Unpack[schemas.DatasetFilters]
    ) -> list[schemas.DatasetInfo]:
        """List data sets, newest first. `name` is the beginning of the name."""
        return await self._http.run(calls.items("/datasets", limit, **filters))

    async def dataset(self, dataset_id: str) -> schemas.DatasetInfo:
        """Return a data set, by its id or its name, with its status and the problems that were found in it."""
        return await self._http.json(calls.get("datasets", dataset_id))

    async def samples(self, dataset_id: str, *, limit: int = 20) -> list[schemas.SampleInfo]:
        """List the first samples of a data set that is ready, with the paths of their pictures."""
        return await self._http.run(
            calls.items(calls.below("datasets", dataset_id, "samples"), limit, key="index")
        )

    async def picture(self, path: str, *, max_side: int | None = None) -> bytes:
        """Return the image file at a path of a sample's or an item's `images`, made smaller if asked to."""
        return (await self._http.send(calls.picture(path, max_side))).content

    async def delete_dataset(self, dataset_id: str) -> None:
        """Delete a data set. Raises Conflict if a job needs it."""
        await self._http.send(calls.delete("datasets", dataset_id))

    async def finetune(self, training_data: str, **fields: Unpack[schemas.FinetuneOptions]) -> AsyncJob:
        """Submit a fine-tuning job."""
        return await self._submit("finetune", {"training_data": training_data, **fields})

    async def evaluate(
        self, benchmark: str, data: str, **fields: Unpack[schemas.EvaluateOptions]
    ) -> AsyncJob:
        """Submit an evaluation job."""
        return await self._submit("evaluate", {"benchmark": benchmark, "data": data, **fields})

    async def _submit(self, kind: Literal["finetune", "evaluate"], fields: Mapping[str, Any]) -> AsyncJob:
        return AsyncJob(self._http, await self._http.json(calls.submit(kind, fields)))

    @overload
    async def dry_run(
        self, kind: Literal["finetune"], *, training_data: str, **fields: Unpack[schemas.FinetuneOptions]
    ) -> schemas.DryRunResult: ...
    @overload
    async def dry_run(
        self,
        kind: Literal["evaluate"],
        *,
        benchmark: str,
        data: str,
        **fields: Unpack[schemas.EvaluateOptions],
    ) -> schemas.DryRunResult: ...
    async def dry_run(self, kind: schemas.JobKind, **fields: Any) -> schemas.DryRunResult:
        """Estimate what a job would do and need, without submitting it."""
        return await self._http.json(calls.post(kind, json={**fields, "dry_run": True}))

    async def jobs(self, *, limit: int = 20, **filters: Unpack[schemas.JobFilters]) -> list[AsyncJob]:
        """List jobs, newest first. `name` is the beginning of the name, and times are seconds since 1970."""
        found = await self._http.run(calls.items("/jobs", limit, **filters))
        return [AsyncJob(self._http, info) for info in found]

    async def job(self, job_id: str) -> AsyncJob:
        """Return a job, by its id or its name."""
        return AsyncJob(self._http, await self._http.json(calls.get("jobs", job_id)))

    async def changes(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield every change of your jobs and of the aliases as it happens, and never end.

        `("job", job)`, when its status or its progress changes; `("alias", alias)`, when it is moved, locked or
        removed; `("reset", {})`, when this client was away for too long, or too much has changed: read your lists
        again.
        """
        async for event in self._http.follow(calls.get("events")):
            yield event.event, event.json()

    async def workers(self) -> list[schemas.WorkerInfo]:
        """List the workers of the last day: whether each is alive, and its current job."""
        return (await self._http.json(calls.get("workers")))["data"]


class AsyncJob(JobRecord):
    """A job and the calls on it."""

    def __init__(self, http: AsyncHttp, info: schemas.JobInfo) -> None:
        super().__init__(info)
        self._http = http

    async def refresh(self) -> AsyncJob:
        self.info = await self._http.json(calls.get("jobs", self.id))
        return self

    async def wait(self, *, progress: bool = False, timeout: float | None = None) -> AsyncJob:
        """Wait until the job has ended, or for `timeout` seconds. A paused job is waited for too.

        With `progress`, a bar is shown.

        Raises: JobFailed if the job failed or was cancelled; WaitTimeout if it has not ended in time;
        ConnectionFailed if the service does not come back after the connection was lost.
        """
        with Progress(self, shown=progress) as shown:
            if timeout is not None:
                await self._poll(timeout, shown)
            else:
                async for event in self._http.follow(calls.get("jobs", self.id, "events", after=0)):
                    if event.event == "progress":
                        shown.show(event.json())
                await self.refresh()
        self.raise_for_failure()
        return self

    async def _poll(self, timeout_s: float, shown: Progress) -> None:
        """Ask until the job has ended: a stream that is silent cannot be left when the time is up."""
        ends_at = time.monotonic() + timeout_s
        while True:
            try:
                await self.refresh()
            except (ConnectionFailed, Unavailable):  # the service may be restarting
                if time.monotonic() >= ends_at:
                    raise
            else:
                shown.show(self.info)
                if self.has_ended:
                    return
                if time.monotonic() >= ends_at:
                    raise WaitTimeout(self.info, timeout_s)
            await async_sleep(min(connection.RECONNECT_PAUSE_S, max(0.0, ends_at - time.monotonic())))

    async def events(self, *, after: int = 0) -> AsyncIterator[schemas.EventInfo]:
        """Yield the job's events after number `after`, then new ones as they happen, until the job ends."""
        async for event in self._http.follow(calls.get("jobs", self.id, "events", after=after)):
            if event.event not in ("progress", "done"):  # these two are not stored and have no number
                yield event.json()

    async def metrics(self) -> list[schemas.MetricPointInfo]:
        """Return all metrics of the job, one entry per step."""
        return await self._http.run(calls.metrics(self.id))

    async def curves(self, *names: str, **options: Unpack[schemas.CurveOptions]) -> dict[str, schemas.Curve]:
        """Return the job's metrics as curves by name: all of them, or those with these names.

        `points` is the most that a curve has, 1000 by default.
        """
        call = calls.get("jobs", self.id, "curves", names=list(names), **options)
        return (await self._http.json(call))["curves"]

    async def checkpoints(self) -> list[schemas.CheckpointInfo]:
        """List the checkpoints that the job keeps, in the order of their steps."""
        return (await self._http.json(calls.get("jobs", self.id, "checkpoints")))["data"]

    async def items(
        self, *, limit: int = 20, other: str | None = None, **filters: Unpack[schemas.ItemFilters]
    ) -> list[schemas.ItemInfo]:
        """List the first items that the job has measured: outcomes, scores, and the paths of their pictures.

        With another job that measured the same items (id or name), which came before, each has its scores there too.
        For a fine-tuning job, `on` is one of the names in `evaluations` of its result.
        """
        path = calls.below("jobs", self.id, "items")
        return await self._http.run(calls.items(path, limit, key="index", **{"with": other}, **filters))

    async def compare(self, other: str | None = None, *, on: str | None = None) -> schemas.ComparisonInfo:
        """Compare what the job has measured with another job (id or name), or with its baseline, item by item.

        Each may be an evaluation or a fine-tuning job, such as a job and its control. `on` is one of the names in
        `evaluations` of a fine-tuning job's result. By default, the first that both have measured counts.
        """
        return await self._http.json(calls.get("jobs", self.id, "comparison", **{"with": other, "on": on}))

    def log(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the log records that a fine-tuning job has written so far."""
        return self._http.records(calls.get("jobs", self.id, "log"))

    async def report(self) -> str:
        """Return the report of a job that has succeeded as HTML."""
        return (await self._http.send(calls.get("jobs", self.id, "report"))).text

    async def cancel(self) -> AsyncJob:
        """Cancel the job; a running one is `cancelling` until its worker has stopped."""
        return await self._act("cancel")

    async def pause(self) -> AsyncJob:
        """Pause the job; a running one is `pausing` until its worker has written a checkpoint."""
        return await self._act("pause")

    async def resume(self) -> AsyncJob:
        """Queue a paused job again; it continues from its checkpoint."""
        return await self._act("resume")

    async def retry(self) -> AsyncJob:
        """Queue a failed or cancelled job again; it continues from its newest checkpoint."""
        return await self._act("retry")

    async def delete(self) -> AsyncJob:
        """Delete the files of a job that has ended; its record and its version stay."""
        self.info = await self._http.json(calls.delete("jobs", self.id))
        return self

    async def _act(self, action: str) -> AsyncJob:
        self.info = await self._http.json(calls.post("jobs", self.id, action))
        return self

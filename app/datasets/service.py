"""The data set operations behind the routes: receive, register, list, delete. Workers check the data."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field

from pydantic import ValidationError

from sds_clip.app.bodies import translated
from sds_clip.app.budgets import Budget
from sds_clip.app.datasets.folders import Claim, DatasetFolders
from sds_clip.app.datasets.leftovers import remove_leftovers
from sds_clip.app.datasets.receive import receive_archive, receive_shards
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.errors import DatasetBusy, InvalidRequest, MalformedBody, UnknownRecord
from sds_clip.app.form_stream import FormStream, Part
from sds_clip.app.keys import Caller
from sds_clip.app.schemas.datasets import DatasetFields, DatasetInfo, DatasetList, RegisterDataset
from sds_clip.app.schemas.jobs import EventList
from sds_clip.app.store import SeenBy
from sds_clip.app.store.datasets import new_dataset_id, stored_too_much
from sds_clip.app.store.names import is_id
from sds_clip.app.store.paging import Search
from sds_clip.app.store.records import MAX_BAD_SHARE, SOURCE_PATH, Dataset, DatasetStatus, Json
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.verdicts import check_of
from sds_clip.app.store_threads import StoreThreads, in_store_thread
from sds_clip.app.threads import in_own_thread, to_the_end

logger = logging.getLogger(__name__)

FILE, SHARDS = "file", "shards"
"""The names of a form's files: one archive, or any number of shards."""
_CHECK_EVERY_BYTES = 8 * 2**20
# A running check may hold a deleted set's files for a while, so removal is retried for five minutes.
_TRY_AGAIN_S = 5.0
_TRIES = 60


@dataclass(eq=False)
class DatasetService:
    """Data sets, with their records and files. It reaches the store only as the workspace of a caller.

    Every method raises StoreUnavailable and StoreBusy, and UnknownRecord for a data set that the caller does not see.
    """

    _seen_by: SeenBy
    _threads: StoreThreads
    _folders: DatasetFolders
    _roots: SourceRoots
    _: KW_ONLY
    max_bytes: int
    max_stored_bytes_per_key: int
    uploads: Budget
    check_disk: Callable[[], None]
    wake: Callable[[JobKind, str], None]
    _removals: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    @in_store_thread
    def register(self, caller: Caller, request: RegisterDataset) -> Dataset:
        """Register data that are under the operator's roots.

        Raises: InvalidRequest, SourceForbidden, SourceMissing, DiskReserve, KeyLimitReached, Overloaded, NameTaken.
        """
        self._roots.resolve(request.source)
        self.check_disk()
        return self._add(caller, request, {SOURCE_PATH: request.source})

    async def receive(self, caller: Caller, form: FormStream) -> Dataset:
        """Write a form's archive or shards to disk as they arrive, and register the data set.

        Raises: MalformedBody, InvalidRequest, InvalidArchive, UploadTooLarge, StorageFull, DiskReserve,
        Overloaded, NameTaken. Nothing is left on disk then, nor after the client disconnects.
        """
        with self.uploads.hold(1, caller.name):
            dataset_id = new_dataset_id()
            quota = await self._threads.run(self._quota, caller)
            async with self._claimed(dataset_id) as claim:
                fields, source = await self._received(caller, claim, form, quota)
                return await self._threads.run(lambda: self._add(caller, fields, source, dataset_id))

    async def id_of(self, caller: Caller, given: str) -> str:
        """The id of the data set that an id or a name stands for. Raises AmbiguousName."""
        if is_id(given):
            return given
        return await self._threads.run(self._seen_by(caller.sees).datasets.named, given, caller.name)

    @in_store_thread
    def list(
        self,
        caller: Caller,
        *,
        status: DatasetStatus | None,
        format: str | None,
        owner: str | None,
        search: Search,
        after: str | None,
        limit: int,
    ) -> DatasetList:
        """Data sets, newest first. Deleted ones are included only if `status` asks for them."""
        datasets = self._seen_by(caller.sees).datasets
        page = datasets.list(
            status=status, format=format, owner=owner, search=search, after=after, limit=limit
        )
        checks = datasets.checks(page.items)
        infos = [DatasetInfo.of(each, checks.get(each.id)) for each in page.items]
        return DatasetList(data=infos, has_more=page.has_more)

    @in_store_thread
    def get(self, caller: Caller, dataset_id: str) -> DatasetInfo:
        datasets = self._seen_by(caller.sees).datasets
        found = datasets.get(dataset_id)
        return DatasetInfo.of(found, datasets.checks([found]).get(dataset_id))

    @in_store_thread
    def events(self, caller: Caller, dataset_id: str, *, after: int, limit: int) -> EventList:
        """Those of the check. There are none before it is submitted, and a while after its end."""
        store = self._seen_by(caller.sees)
        store.datasets.get(dataset_id)
        try:
            return EventList.of(
                store.events.events(check_of(dataset_id), after=after, limit=limit + 1), limit
            )
        except UnknownRecord:
            return EventList(data=[], has_more=False)

    async def delete(self, caller: Caller, dataset_id: str) -> None:
        """Delete a data set and its files. Registered data stay in place. Raises RecordInUse."""
        await self._threads.run(self._seen_by(caller.sees).datasets.delete, dataset_id)
        if not await self._removed(dataset_id):
            task = asyncio.create_task(self._remove_later(dataset_id), name=f"remove {dataset_id}")
            self._removals.add(task)
            task.add_done_callback(self._removals.discard)

    async def sweep(self) -> None:
        """Remove what crashes have left on disk. Raises StoreUnavailable."""

        swept = await in_own_thread(
            lambda: remove_leftovers(self._seen_by(None), self._folders), "sweep data sets"
        )
        if swept:
            logger.info("The leftover files of %d data sets were removed.", len(swept))

    async def close(self) -> None:
        """Stop retrying to remove files that another process holds. The next start removes them."""
        for task in self._removals:
            task.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)

    def _add(
        self, caller: Caller, fields: DatasetFields, source: Json, dataset_id: str | None = None
    ) -> Dataset:
        added = self._seen_by(caller.sees).datasets.add(
            name=fields.name or "",
            format=fields.format,
            source={**source, MAX_BAD_SHARE: fields.max_bad_share},
            owner=caller.name,
            id=dataset_id,
            size_bytes=source.get("size_bytes", 0),
            # Checked again, because other uploads of the key may have ended meanwhile, in any process.
            max_stored_bytes=self.max_stored_bytes_per_key if caller.name else None,
        )
        self.wake(JobKind.CHECK, check_of(added.id))
        return added

    def _quota(self, caller: Caller) -> Budget | None:
        """What the caller may still store.

        Raises: KeyLimitReached if that is nothing; KeyLimitReached and Overloaded if too many data sets are unchecked.
        """
        self._seen_by(None).datasets.check_room(caller.name)
        if not caller.name:
            return None
        limit = self.max_stored_bytes_per_key
        left_bytes = limit - self._seen_by(None).datasets.stored_bytes(caller.name)
        quota = Budget(left_bytes, full=lambda used, left: stored_too_much(limit))
        quota.take()
        return quota

    @asynccontextmanager
    async def _claimed(self, dataset_id: str) -> AsyncIterator[Claim]:
        """The claim on a new data set. Its upload is removed unless the block ends normally."""
        with ExitStack() as stack:
            # The disk may be slow, and the event loop does not wait for it.
            claim = await to_the_end(
                lambda: stack.enter_context(self._folders.claim(dataset_id)), "claim upload"
            )
            undo = stack.enter_context(ExitStack())
            undo.callback(claim.drop_upload)
            try:
                yield claim
                undo.pop_all()
            finally:
                # This may remove gigabytes, so it runs in a thread, and it ends even if the caller gave up.
                leave = stack.pop_all()
                await asyncio.shield(in_own_thread(leave.close, "leave upload"))

    async def _received(
        self, caller: Caller, claim: Claim, form: FormStream, quota: Budget | None
    ) -> tuple[DatasetFields, Json]:
        values: dict[str, str] = {}
        files = _files(form, values)
        first = await anext(files, None)
        if first is None:
            raise InvalidRequest(
                f"Send an archive in the form field `{FILE}`, or shards in the form field `{SHARDS}`.",
                param=FILE,
            )
        if "format" in values:  # refuse bad fields before gigabytes arrive in vain
            name = _fields(values).name or ""
            await self._threads.run(self._seen_by(None).datasets.check_free, name, caller.name)
        if first.name == FILE:
            received = [await receive_archive(claim, self._chunks(first, quota), max_bytes=self.max_bytes)]
            if await anext(files, None) is not None:
                raise MalformedBody("Send either one archive or several shards.", param=FILE)
        else:
            shards = self._shards(first, files, quota)
            received = await receive_shards(claim, shards, max_bytes=self.max_bytes)
        source = {
            "upload": "archive" if first.name == FILE else SHARDS,
            "size_bytes": sum(each.size_bytes for each in received),
            "sha256": [each.sha256 for each in received],
        }
        return _fields(values), source

    async def _shards(
        self, first: Part, files: AsyncIterator[Part], quota: Budget | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._chunks(first, quota)
        async for part in files:
            if part.name != SHARDS:
                raise MalformedBody("Send either one archive or several shards.", param=part.name)
            yield self._chunks(part, quota)

    async def _chunks(self, part: Part, quota: Budget | None) -> AsyncIterator[bytes]:
        """A file's bytes, while the disk and the caller have room for them. Raises DiskReserve, KeyLimitReached."""
        unchecked_bytes = _CHECK_EVERY_BYTES
        async for chunk in part.chunks():
            if unchecked_bytes >= _CHECK_EVERY_BYTES:
                await asyncio.to_thread(self.check_disk)
                unchecked_bytes = 0
            if quota is not None:
                quota.take(len(chunk))
            unchecked_bytes += len(chunk)
            yield chunk

    async def _removed(self, dataset_id: str) -> bool:
        """Remove the files of a deleted data set. False while a worker that is checking it holds them."""
        try:
            await in_own_thread(lambda: self._folders.remove(dataset_id), f"remove {dataset_id}")
        except DatasetBusy:
            return False
        return True

    async def _remove_later(self, dataset_id: str) -> None:
        for _ in range(_TRIES):
            await asyncio.sleep(_TRY_AGAIN_S)
            if await self._removed(dataset_id):
                return
        logger.warning("The files of %s are still in use. The next start removes them.", dataset_id)


async def _files(form: FormStream, values: dict[str, str]) -> AsyncIterator[Part]:
    """Yield the files of a form, and put its fields into `values` on the way. Raises MalformedBody."""
    async for part in form:
        if part.name in (FILE, SHARDS):
            yield part
        elif part.name in values or part.name not in DatasetFields.model_fields:
            reason = "appears twice" if part.name in values else "is not a field of this form"
            raise MalformedBody(f"The field {part.name!r} {reason}; correct the form.", param=part.name)
        else:
            values[part.name] = await part.text()


def _fields(values: dict[str, str]) -> DatasetFields:
    try:
        return DatasetFields.model_validate(values)
    except ValidationError as error:
        raise translated(error, DatasetFields) from None

"""What a serving process needs for jobs, data sets and versions: store, threads, broker connection.

Inference never waits for it. While the database is unavailable, the routes for jobs, data sets and versions
answer 503, and images are still matched. A process that starts without the database serves what its own state
records (`sds_clip.app.registry.local_state`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path

from sds_clip.app.budgets import Budget
from sds_clip.app.data_folder import DataFolder, WrongDataFolder
from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.datasets.sample_service import SampleService
from sds_clip.app.datasets.service import DatasetService
from sds_clip.app.decoder import Decoder
from sds_clip.app.disk import check_reserve
from sds_clip.app.errors import ConfigurationError, StoreUnavailable
from sds_clip.app.jobs.changes import Changes
from sds_clip.app.jobs.evaluation_service import EvaluationService
from sds_clip.app.jobs.model_resolver import ModelResolver
from sds_clip.app.jobs.service import JobService
from sds_clip.app.jobs.validator import JobValidator
from sds_clip.app.jobs.waker import Waker
from sds_clip.app.pictures import Pictures
from sds_clip.app.registry.download import Downloads
from sds_clip.app.registry.local_state import has_state
from sds_clip.app.registry.store_source import register_served, registry_of
from sds_clip.app.registry.version_service import VersionService
from sds_clip.app.settings import MAX_EVENT_STREAMS, Settings
from sds_clip.app.store import Store
from sds_clip.app.store_gauges import StoreGauges
from sds_clip.app.store_threads import StoreThreads
from sds_clip.app.threads import in_own_thread
from sds_clip.models.clip.model import Clip

logger = logging.getLogger(__name__)

STORE_THREADS = 8
"""So many requests use the database at the same time."""
MAX_UPLOADS = 4
"""So many at the same time."""
MAX_UPLOADS_PER_KEY = MAX_UPLOADS // 2
_TRY_AGAIN_S = 2.0
CHECK_PROGRAM_EVERY_S = 10.0
WATCH_FOLDER_EVERY_S = 2.0


class Backend:
    """The services that share one database.

    Raises: ConfigurationError for a URL or roots that cannot be used, BadReferenceError for an invalid
    reference.
    """

    def __init__(
        self, settings: Settings, database_url: str, served: Sequence[Clip], decoder: Decoder
    ) -> None:
        self._served = served
        self._store = store = Store(database_url, timeout_s=settings.store_timeout_s)
        self.folder = DataFolder(store.database, settings.data_dir)
        self._threads = threads = StoreThreads(STORE_THREADS)
        self._waker = Waker(settings.broker_url)
        self.nameable = models = ModelResolver(
            models=[clip.reference for clip in served],
            allowed=settings.allowed_models,
            teachers=settings.allowed_teachers,
        )
        check_disk = partial(check_reserve, settings.data_dir, settings.disk_reserve_bytes)
        validator = JobValidator(store.seen_by, models, settings, check_disk)
        self.jobs = JobService(store.seen_by, threads, self._waker, validator, settings.data_dir)
        self.evaluations = EvaluationService(store.seen_by, threads, settings.data_dir)
        self.streams = Budget(
            MAX_EVENT_STREAMS,
            "event streams",
            limit="max_event_streams_per_key",
            per_key=settings.max_event_streams_per_key,
            retry_after_s=lambda: 10,
        )
        folders, roots = _folders(settings.data_dir / "datasets"), SourceRoots(settings.dataset_roots)
        self.samples = SampleService(store.seen_by, threads, folders, roots, Pictures(decoder))
        self.datasets = DatasetService(
            store.seen_by,
            threads,
            folders,
            roots,
            max_bytes=settings.max_upload_bytes,
            max_stored_bytes_per_key=settings.max_stored_bytes_per_key,
            uploads=Budget(
                MAX_UPLOADS,
                "uploads",
                limit="max_uploads_per_key",
                per_key=MAX_UPLOADS_PER_KEY,
                retry_after_s=lambda: 30,
            ),
            check_disk=check_disk,
            wake=self._waker.wake,
        )
        bases = [*(clip.reference for clip in served), *settings.allowed_models]
        downloads = Downloads(settings.data_dir, bases)
        self.registry = registry_of(store, settings.data_dir, self.folder)
        self.versions = VersionService(
            store.seen_by, threads, downloads, settings.data_dir, self.registry.mark_damaged
        )
        self.changes = Changes(store.seen_by, store.now, threads, self.versions)
        self.gauges = StoreGauges(
            store,
            settings.data_dir,
            settings.disk_reserve_bytes,
            is_open=lambda: threads.open,
            has_its_folder=lambda: self.folder.trouble is None,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Prepare the database. If it is unavailable, retry in the background while the process serves.

        Raises: ConfigurationError if its tables are newer than this program.
        """
        self._waker.start()
        if not await self._prepare():
            self._begin(self._prepare_later())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.changes.close()
        await self.datasets.close()
        await self.gauges.close()
        self._threads.close()
        await in_own_thread(self._waker.close, "close waker")
        self._store.close()

    async def _prepare(self) -> bool:
        def prepare() -> None:
            self._store.migrate()
            register_served(self._store, self._served)
            self.folder.look()

        try:
            await in_own_thread(prepare, "prepare database")
        except StoreUnavailable:
            return False
        # Requests may use the database only now that its tables exist.
        self._threads.open = True
        self._begin(self._sweep())
        self._begin(self._watch_program())
        self._begin(self._watch_folder())
        return True

    async def _prepare_later(self) -> None:
        while True:
            await asyncio.sleep(_TRY_AGAIN_S)
            try:
                if await self._prepare():
                    logger.info("The database is ready.")
                    return
            except ConfigurationError as error:
                logger.error("The database cannot be used: %s", error)
                return

    async def _watch_program(self) -> None:
        """Use the database no longer once a newer program has migrated it beyond this one."""
        while True:
            await asyncio.sleep(CHECK_PROGRAM_EVERY_S)
            try:
                await in_own_thread(self._store.check_program, "check program")
            except StoreUnavailable:
                continue
            except ConfigurationError as error:
                logger.error("Images are still matched, but nothing else is answered. %s", error)
                self._threads.open = False
                return

    async def _watch_folder(self) -> None:
        """A folder that hangs delays only this: `DataFolder.trouble` says so meanwhile."""
        while True:
            await asyncio.sleep(WATCH_FOLDER_EVERY_S)
            with contextlib.suppress(StoreUnavailable):
                await in_own_thread(self.folder.look, "data folder")

    async def _sweep(self) -> None:
        if not self.folder.is_right:
            return
        try:
            await self.datasets.sweep()
        except (StoreUnavailable, OSError) as error:
            logger.warning(
                "Files of unfinished data sets could not be removed. The next start tries again. Reason: %s",
                error,
            )

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="backend")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def migrate_early(settings: Settings) -> None:
    """If the database answers, migrate the tables before anything else starts.

    Otherwise `Backend` migrates them later. A service whose state is elsewhere goes on without its data folder, since
    it has copies of what it served.

    Raises: ConfigurationError for a database or a data folder that cannot be used.
    """
    if settings.database_url is None:
        return
    store = Store(settings.database_url, timeout_s=settings.store_timeout_s)
    try:
        store.migrate()
        DataFolder(store.database, settings.data_dir).check()
    except WrongDataFolder:
        if settings.state_dir is None or not has_state(settings.state_dir):
            raise
        logger.exception("The service starts with what its state folder has.")
    except StoreUnavailable:
        logger.warning("The database does not respond. The service starts without it.")
    finally:
        store.close()


def _folders(root: Path) -> DatasetFolders:
    try:
        return DatasetFolders(root)
    except OSError as error:
        raise ConfigurationError(
            f"{root} cannot be written ({error.strerror}); set SDS_CLIP_DATA_DIR to another folder."
        ) from error

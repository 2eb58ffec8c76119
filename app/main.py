"""Assembles the HTTP service: settings -> weights -> engine -> routes and middleware -> server."""

import contextlib
import gc
import importlib.metadata
from collections.abc import AsyncIterator
from functools import partial

import torch
from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import Lifespan

from sds_clip.app import logs, tracing
from sds_clip.app.backend import Backend, migrate_early
from sds_clip.app.budgets import Rate
from sds_clip.app.decoder import Decoder
from sds_clip.app.edge import auth, middleware, responses
from sds_clip.app.edge.disconnect import CancelOnDisconnect
from sds_clip.app.edge.guard import GuardHost
from sds_clip.app.edge.limit_key import PROBES
from sds_clip.app.edge.openapi import describe_errors, install_openapi
from sds_clip.app.edge.query import refuse_unknown_parameters
from sds_clip.app.errors import InvalidRequest
from sds_clip.app.metrics import Metrics, gauge
from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.registry.source import Registry, find_folder, folders_begun
from sds_clip.app.request_limits import Limits
from sds_clip.app.routes import (
    changes,
    cohere,
    console,
    datasets,
    docs,
    inference,
    items,
    jobs,
    openai,
    probes,
    session,
    submit,
    workers,
)
from sds_clip.app.routes import models as model_routes
from sds_clip.app.server import DrainingServer, SideServer, listen
from sds_clip.app.serving.aliases import FollowedAliases, Following
from sds_clip.app.serving.classes import CLASS_WAIT_S, MAX_DISK_BYTES, ClassWeights
from sds_clip.app.serving.device_memory import device_memory
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.golden import GoldenEmbeddings
from sds_clip.app.serving.image_reader import ImageReader
from sds_clip.app.serving.loading import VersionLoader
from sds_clip.app.serving.predictor import Predictor
from sds_clip.app.serving.rollout import Rollout
from sds_clip.app.serving.served_models import ServedModels
from sds_clip.app.serving.status import StatusBoard
from sds_clip.app.serving.swap import Swapper
from sds_clip.app.serving.version_cache import VersionCache
from sds_clip.app.settings import Settings
from sds_clip.app.threads import with_one_torch_thread
from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve
from sds_clip.models.clip.precision import limit_memory, use_threads
from sds_clip.models.disk_cache import DiskCache
from sds_clip.models.images.decode import ImageLimits
from sds_clip.models.machine import release_free_memory, usable_bytes, usable_cores

DESCRIPTION = (
    "This service matches images with texts, classifies images without training, and computes embeddings with a "
    "CLIP checkpoint. It also runs fine-tuning and evaluation jobs, and puts new weights into service without a "
    "restart."
)
TELEMETRY: TelemetryConfig = {
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
    "exclude": lambda scope: scope.get("path") in PROBES,
}
"""With traces (`sds_clip.app.tracing`), one span for each request but probes."""
ROUTERS = (
    console,
    docs,
    inference,
    openai,
    cohere,
    model_routes,
    submit,
    jobs,
    items,
    changes,
    workers,
    datasets,
    session,
    probes,
)


def run(settings: Settings, registry: Registry | None = None) -> None:
    """Load the weights, then serve until SIGTERM or SIGINT, and let accepted requests finish.

    `registry` lists the versions and says where the aliases point. Without one, the database in the settings
    is used. Without a database, requests can name the versions under the data folder, and no alias is
    followed.

    Raises: CheckpointError for weights that cannot be served; ConfigurationError for unsafe settings, for an address
    of the metrics that cannot be used, for a state folder that another process holds, and for traces that cannot be
    sent.
    """
    logs.configure(settings.log_level, settings.log_format)
    auth.check_binding(settings)
    # Before the weights are loaded, which takes long.
    metrics = None if settings.metrics_address is None else listen(*settings.metrics_address)
    tracing.configure("sds-clip")
    migrate_early(settings)
    use_threads(settings.threads or usable_cores())
    if settings.gpu_memory_share is not None:
        limit_memory(settings.device, settings.gpu_memory_share)
    clips = with_one_torch_thread(lambda: _load(settings), torch.get_num_threads())
    # Everything loaded so far stays, so the garbage collector need not traverse it between requests.
    gc.collect()
    gc.freeze()
    release_free_memory()  # what the weights took before they were cast and packed
    app = create_app(settings, clips, registry)
    side = None if metrics is None else SideServer(metrics_app(app, settings), metrics)
    DrainingServer(app, settings, side).run()


def create_app(settings: Settings, clips: dict[str, Clip], registry: Registry | None = None) -> FastAPI:
    """The service over loaded weights, keyed by the name that requests use. The first is the default."""
    metrics = Metrics()
    images = ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    limits = Limits(settings.max_images, images)
    decoder = _decoder(settings, limits, metrics)
    metrics.watch(lambda: device_memory({clip.device for clip in clips.values()}))
    backend = None
    if settings.database_url is not None:
        backend = Backend(settings, settings.database_url, list(clips.values()), decoder)
        metrics.watch(backend.gauges.collect)
    registry = registry or (_of_folders(settings) if backend is None else backend.registry)
    following = None
    if registry.read_aliases is not None:
        following = Following(registry.read_aliases, FollowedAliases(), LocalState(settings.own_state_dir))
    aliases = None if following is None else following.aliases
    models = with_one_torch_thread(lambda: ServedModels(clips, aliases), torch.get_num_threads())
    engine = _engine(settings, models, decoder, metrics)
    fetcher = None
    if settings.allow_url_images:
        from sds_clip.app.fetch import Fetcher

        fetcher = Fetcher(max_bytes=settings.max_image_bytes)
    # A request waits while the cache is read. The short wait_s keeps another process that writes to it from holding the
    # request up.
    disk = DiskCache(settings.data_dir / "class_weights.sqlite3", max_bytes=MAX_DISK_BYTES, wait_s=0.2)
    classes = ClassWeights(engine, disk, wait_s=CLASS_WAIT_S)
    loader = VersionLoader(
        engine,
        registry,
        state=None if following is None else following.state,
        device=settings.device,
        precision=settings.precision,
        bases=[*settings.models, *settings.allowed_models],
    )
    versions = VersionCache(models, loader, max_bytes=settings.max_version_bytes)
    swapper = None if following is None else Swapper(models, following, loader, classes, metrics)
    board = StatusBoard(
        models,
        loader,
        following,
        registry.reports,
        settings.data_dir.absolute(),
        lambda: None if backend is None else backend.folder.trouble,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as parts:  # each ends before those that it needs
            if fetcher is not None:
                parts.push_async_callback(fetcher.close)
            parts.callback(decoder.close)
            parts.push_async_callback(engine.close)
            engine.start()
            await engine.warm_up()
            parts.push_async_callback(classes.close)
            if following is not None:
                parts.callback(following.state.close)
            if backend is not None:
                parts.push_async_callback(backend.close)
                await backend.start()  # before the aliases are read for the first time
            parts.push_async_callback(loader.close)
            parts.push_async_callback(versions.close)
            if swapper is not None:
                parts.push_async_callback(swapper.close)
                await swapper.start()
            parts.push_async_callback(board.close)
            board.start()
            yield

    app = api(lifespan)
    app.state.metrics_need_a_key = settings.metrics_address is not None
    app.state.metrics = metrics
    app.state.limits = limits
    app.state.engine = engine
    app.state.golden = GoldenEmbeddings(engine, loader, settings.data_dir / "golden")
    app.state.status = board
    app.state.rollout = Rollout(board, swapper, engine)
    app.state.backend = backend
    reader = ImageReader(decoder, fetcher, metrics, lambda: engine.shared)
    items = Rate(settings.max_items_per_s_per_key, "max_items_per_s_per_key")
    app.state.versions = versions
    app.state.predictor = Predictor(engine, versions, reader, classes, limits, items)
    responses.install_error_handlers(app)
    auth.install(app, settings)
    console.install(app, settings)
    auth.assert_every_route_declares(app)
    middleware.install(app, settings, metrics)
    app.add_middleware(CancelOnDisconnect)
    return app


def _decoder(settings: Settings, limits: Limits, metrics: Metrics) -> Decoder:
    decoder = Decoder(
        limits.image,
        threads=settings.threads or usable_cores(),
        max_bytes=settings.max_decode_bytes or usable_bytes() // 4,
        max_waiting=settings.max_queue,
    )
    said = "Memory reserved for images that are being decoded, in bytes."
    metrics.watch(lambda: [gauge("decode_bytes", said, decoder.budget.used_bytes)])
    return decoder


def _of_folders(settings: Settings) -> Registry:
    """Without a database: the versions below the data folder."""
    root = settings.data_dir / "versions"
    return Registry(partial(find_folder, root), begun=lambda prefix, owner: folders_begun(root, prefix))


def _engine(settings: Settings, models: ServedModels, decoder: Decoder, metrics: Metrics) -> Engine:
    on_cpu = any(model.clip.device.type == "cpu" for model in models)
    return Engine(
        models,
        metrics,
        max_batch=settings.max_batch_size,
        max_queue=settings.max_queue,
        max_queue_per_key=settings.max_queue_per_key,
        deadline_s=settings.deadline_s,
        pending_decodes=(lambda: decoder.unfinished) if on_cpu else None,
        cores=usable_cores(),
    )


def metrics_app(app: FastAPI, settings: Settings) -> FastAPI:
    """What the metrics' own address serves, without keys: /metrics and the probes of `app`."""
    side = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, telemetry=TELEMETRY)
    side.state = app.state
    side.include_router(probes.router)
    side.dependency_overrides[probes.scrapes] = auth.public
    responses.install_error_handlers(side)
    if settings.metrics_address is not None and settings.metrics_address[0] in auth.LOOPBACK_BINDINGS:
        side.add_middleware(GuardHost, allowed_hosts=settings.allowed_hosts)
    side.add_middleware(middleware.RequestId)
    return side


def api(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The routes and their description, without what answers requests."""
    app = FastAPI(
        title="SDS-CLIP",
        version=importlib.metadata.version("sds-clip"),
        description=DESCRIPTION,
        openapi_url=None,  # app/routes/docs.py keeps its bytes, and has a page that needs no other host
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=TELEMETRY,
        dependencies=[Depends(refuse_unknown_parameters)],
        generate_unique_id_function=lambda route: route.name,
        responses=describe_errors(InvalidRequest),
    )
    for routes in ROUTERS:
        app.include_router(routes.router)
    install_openapi(app)
    return app


def _load(settings: Settings) -> dict[str, Clip]:
    return {
        reference: to_serve(load_served(reference, device=settings.device, precision=settings.precision))
        for reference in settings.models
    }

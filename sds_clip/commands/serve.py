"""`sds-clip serve`: the HTTP service."""

import gc
from typing import Any

from sds_clip.extras import require_extra
from sds_clip.options import command, read_settings, service_options, supervised_option
from sds_clip.signals import end_with_supervisor


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip serve
sds-clip serve --model ViT-B-32/openai --model demo --port 9000
sds-clip keys create phone --scope infer --keys-file keys.json
sds-clip serve --host 0.0.0.0 --keys-file keys.json
""",
)
@service_options
@supervised_option
def serve(supervised: bool, **given: Any) -> int:
    """Serve models over HTTP.

    The service answers /match, /classify and /embed. With a database (SDS_CLIP_DATABASE_URL) and the extra `jobs`
    it also manages jobs, data sets and versions; `sds-clip up` starts it with a database and workers. The service's
    page /docs describes the API.

    Every setting of the service can be given in the environment as SDS_CLIP_NAME, for example SDS_CLIP_MAX_QUEUE=512.
    An option overrides its environment variable. Without a keys file the service listens on this machine only.
    """
    if supervised:
        end_with_supervisor()
    settings = read_settings(**given)
    if settings.database_url or settings.broker_url:
        require_extra("jobs", "A service with SDS_CLIP_DATABASE_URL or SDS_CLIP_BROKER_URL")
    gc.disable()  # among what imports make, it takes a second to find next to nothing
    from sds_clip.app.main import run as run_service

    gc.freeze()
    gc.enable()
    run_service(settings)
    return 0

"""GET /: the console, a page over this API. `make console` builds it from console/ into app/console/.

Its Content-Security-Policy lets it load and call nothing but this service.
"""

import logging
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse

import sds_clip.app as package
from sds_clip.app.edge.auth import public
from sds_clip.app.errors import NotFound
from sds_clip.app.settings import Settings

logger = logging.getLogger(__name__)

FOLDER = Path(package.__file__).parent / "console"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
# The build names a file by its content, so that a file never changes, and a new page names new files.
PAGE_CACHING = {"Cache-Control": "no-cache"}
ASSET_CACHING = {"Cache-Control": "public, max-age=31536000, immutable"}
NOT_BUILT = "The console is not built. Run `make console` in the repository, then load this page again."

router = APIRouter(dependencies=[Depends(public)], include_in_schema=False)


def install(app: FastAPI, settings: Settings) -> None:
    """Let `app` serve the console, unless the settings turn it off."""
    app.state.console = FOLDER if settings.console else None
    if settings.console and not (FOLDER / "index.html").exists():
        logger.warning("There is no console at /, because it is not built; `make console` builds it.")


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    index = _folder(request) / "index.html"
    if not index.exists():
        return PlainTextResponse(NOT_BUILT, 404, HEADERS | PAGE_CACHING)
    return FileResponse(index, headers=HEADERS | PAGE_CACHING)


@router.api_route("/assets/{name}", methods=["GET", "HEAD"])
async def asset(request: Request, name: str) -> Response:
    files = {file.name: file for file in (_folder(request) / "assets").glob("*")}
    if name not in files:
        raise NotFound(f"There is no {name!r} here; open /.")
    return FileResponse(
        files[name], media_type=MEDIA_TYPES.get(files[name].suffix), headers=HEADERS | ASSET_CACHING
    )


def _folder(request: Request) -> Path:
    folder: Path | None = request.app.state.console
    if folder is None:
        raise NotFound("The console is off; SDS_CLIP_CONSOLE=true turns it on.")
    return folder

"""GET /openapi.json, the description of the API, and /docs, a page that shows it and can call it.

The page is Swagger UI from the package fastapi-offline. FastAPI's own page loads its scripts from a CDN and starts them
in the page. This one works without any other host, and its Content-Security-Policy lets it load and call nothing but
this service.
"""

from importlib.resources import files

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from sds_clip.app.edge.auth import public
from sds_clip.app.errors import NotFound

# Addresses are relative, so that the page also works below a path of a reverse proxy.
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SDS-CLIP: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""
START = """\
SwaggerUIBundle({
  dom_id: "#page",
  url: "openapi.json",
  deepLinking: true,
  validatorUrl: null, // by default it asks a public service
});
"""
ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
# Swagger UI's style sheet has its icons as data: URIs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(dependencies=[Depends(public)], include_in_schema=False)


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    return Response(await request.app.state.description(), media_type="application/json")


@router.get("/docs")
async def page() -> Response:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    return Response(START, media_type="text/javascript")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound(f"There is no {name!r} here; open /docs.")
    file = str(files("fastapi_offline") / "static" / name)
    return FileResponse(file, media_type=ASSETS[name], headers={"Cache-Control": "max-age=3600"})

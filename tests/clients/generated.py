"""Generates a client from the API's description, and calls the service with it. It runs in the generators' environment.

    python generated.py GENERATOR FOLDER URL KEY

FOLDER has the description, openapi.json, and gets the code. What was found is written to stdout as JSON.
"""

import importlib
import json
import pkgutil
import subprocess
import sys
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path
from typing import Any

TEXTS = ["a red circle", "a blue square"]
PICTURE = (Path(__file__).parent / "picture.png").read_bytes()
URI = f"data:image/png;base64,{b64encode(PICTURE).decode()}"
BIN = Path(sys.executable).parent


def openapi_python_client(folder: Path, url: str, key: str) -> dict[str, Any]:
    _run(folder, "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none",
         "--output-path", "made")  # fmt: skip
    made = _imported("made")
    request = made["made.models"].MatchRequest(images=[URI], texts=TEXTS)
    form = made["made.models"].MatchFilesBody(
        images=[made["made.types"].File(payload=PICTURE, file_name="picture.png")],
        texts=TEXTS,
    )
    client = made["made.client"].AuthenticatedClient(base_url=url, token=key)
    match = made["made.api.inference.match"].sync
    answers = [match(client=client, body=body) for body in (request, form)]
    return {"modules": len(made), "scores": [answer.results[0].scores for answer in answers]}


def openapi_generator_cli(folder: Path, url: str, key: str) -> dict[str, Any]:
    _run(folder, "openapi-generator-cli", "generate", "--input-spec", "openapi.json", "--generator-name", "python",
         "--output", ".", "--package-name", "made")  # fmt: skip
    modules = _imported("made")
    made = modules["made"]
    with made.ApiClient(made.Configuration(host=url, access_token=key)) as client:
        request = made.MatchRequest(images=[made.ImageInput(URI)], texts=TEXTS)
        answer = made.InferenceApi(client).match(request)
    return {"modules": len(modules), "scores": [answer.results[0].actual_instance.scores]}


def _run(folder: Path, command: str, *arguments: str) -> None:
    subprocess.run([BIN / command, *arguments], cwd=folder, check=True, stdout=sys.stderr)


def _imported(name: str) -> dict[str, Any]:
    """All modules of a package."""
    package = importlib.import_module(name)
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{name}.")]
    return {each: importlib.import_module(each) for each in (name, *names)}


GENERATORS = {
    "openapi-python-client": openapi_python_client,
    "openapi-generator-cli": openapi_generator_cli,
}

if __name__ == "__main__":
    generator, place, url, key = sys.argv[1:]
    sys.path.insert(0, place)
    print(json.dumps({"version": version(generator), **GENERATORS[generator](Path(place), url, key)}))

"""What mypy says of a user's code: nothing where it is right, and an error in each line that is wrong."""

import re
from pathlib import Path

import pytest
from mypy import api

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = """
[mypy]
strict = True
[mypy-httpx.*,httpx_sse.*,tqdm.*]
follow_imports = skip
ignore_missing_imports = True
"""
USE = """
from sds_clip import AsyncClient, Client
from sds_clip.client.schemas import Hyperparameters, MatchResponse


def right(client: Client, model: str | None) -> list[float]:
    answer = client.match(["a.png"], ["a", "b"], model=model, on_error="skip")
    best: str = answer["results"][0]["best_text"]
    if "error" in answer["results"][0]:
        print(answer["results"][0]["error"]["code"], best)
    for one in client.match(["a.png"], ["a"], models=["default", "mine"])["answers"]:
        print(one["error"]["message"] if "error" in one else one["results"][0]["probabilities"])
    labels = client.classify(["a.png"], "imagenet", templates=["{}"], top_k=3)["results"][0]["predictions"]
    vector = client.embed(texts=["a"], normalize=False, encoding_format="float")["results"][0]["embedding"]
    print(labels[0]["label"], vector)
    moved = client.promote("mine", reason="better", wait_s=30)
    planned = client.promote("mine", reason="better", dry_run=True)
    print(moved["served_by_all"], planned["gate"]["checks"][0]["passed"])
    print(client.models(status="ready")["versions"][0]["id"])
    options: Hyperparameters = {"steps": 2, "lr": 1e-4}
    job = client.finetune("pairs", hyperparameters=options, evaluate=[{"benchmark": "winoground", "data": "w"}])
    if job.info["kind"] == "finetune":
        print(job.info["hyperparameters"])
    print(client.dry_run("evaluate", benchmark="winoground", data="w", model="mine")["estimate"]["seconds"])
    print(job.items(flip="same", right=True)[0]["outcomes"], job.curves("loss", points=50)["loss"]["values"])
    return answer["results"][0]["probabilities"]


async def awaited(client: AsyncClient) -> MatchResponse:
    return await client.match(["a.png"], ["a"], model="demo")


async def wrong(client: Client, later: AsyncClient) -> None:
    client.match(["a.png"], ["a"], modle="mine")  # error: call-overload
    client.match(["a.png"], ["a"], on_error="ignore")  # error: call-overload
    client.match(["a.png"], ["a"])["result"]  # error: typeddict-item
    client.match(["a.png"], ["a"])["results"][0]["probability"]  # error: typeddict-item
    client.match(["a.png"], ["a"], models=["mine"])["answers"][0]["results"]  # error: typeddict-item
    client.embed(texts=["a"], normalise=True)  # error: call-arg
    client.embed(texts=["a"], normalize="yes")  # error: arg-type
    client.promote("mine", reason="better")["gate"]  # error: typeddict-item
    client.finetune("pairs", hyperparameters={"step": 2})  # error: arg-type
    client.finetune("pairs", objective="clips")  # error: arg-type
    client.dry_run("evaluate", training_data="pairs")  # error: call-overload
    client.jobs(status="done")  # error: arg-type
    number: int = client.dataset("pairs")["status"]  # error: assignment
    (await later.embed(texts=["a"]))["dimension"]  # error: typeddict-item
"""


def test_mypy_knows_the_arguments_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mypy.ini").write_text(CONFIG)
    (tmp_path / "use.py").write_text(USE)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    told, trouble, _ = api.run(
        ["--config-file=mypy.ini", "--no-error-summary", "--hide-error-context", "use.py"]
    )
    assert trouble == ""
    found = {
        (int(line), code) for line, code in re.findall(r"^use\.py:(\d+): error: .*\[([\w-]+)\]$", told, re.M)
    }
    lines = enumerate(USE.splitlines(), start=1)
    assert found == {(number, line.split("# error: ")[1]) for number, line in lines if "# error: " in line}, (
        told
    )

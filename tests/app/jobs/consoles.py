"""Browsers that sign in to a service with keys."""

from dataclasses import dataclass
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI
from httpx import Response

from sds_clip.app.edge.session import COOKIE

if TYPE_CHECKING:
    from tests.app.jobs.conftest import Service

SCOPES: dict[str, list[str]] = {
    "infer": ["infer"],
    "train": ["train"],
    "admin": ["admin"],
    "all": ["infer", "train", "admin"],
}


@dataclass
class Signed:
    """A browser that signed in. Its requests have no Authorization header."""

    service: "Service"
    key: str
    set_cookie: "Morsel[str]"
    body: dict[str, Any]

    @property
    def csrf(self) -> dict[str, str]:
        return {"X-CSRF-Token": self.body["csrf_token"]}

    def ask(self, method: str, path: str, **request: Any) -> Response:
        """A request of the console, whose headers the given ones add to."""
        headers = {"Cookie": f"{COOKIE}={self.set_cookie.value}", **request.pop("headers", {})}
        return self.service.client.request(method, path, headers=headers, **request)

    def bearer(self, method: str, path: str, **request: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.key}", **request.pop("headers", {})}
        return self.service.client.request(method, path, headers=headers, **request)


class Console:
    """A service with keys, in which browsers sign in."""

    def __init__(self, service: "Service", keys_file: Path, keys_by_name: dict[str, str]) -> None:
        self.service = service
        self.keys_file = keys_file
        self.keys = keys_by_name

    def sign_in(self, name: str = "all", **headers: str) -> Signed:
        key = self.keys[name]
        answer = self.service.client.post("/session", json={"key": key}, headers=headers)
        assert answer.status_code == 200, answer.text
        self.service.client.cookies.clear()
        return Signed(self.service, key, cookie_of(answer), answer.json())

    @property
    def state(self) -> Any:
        return cast(FastAPI, self.service.client.app).state

    def job(self, owner: str = "all") -> str:
        body = self.service.request(owner=owner)
        headers = {"Authorization": f"Bearer {self.keys[owner]}"}
        return str(self.service.client.post("/finetune", json=body, headers=headers).json()["id"])


def cookie_of(answer: Response) -> "Morsel[str]":
    (header,) = answer.headers.get_list("set-cookie")
    return SimpleCookie(header)[COOKIE]


def is_cleared(answer: Response) -> bool:
    found = cookie_of(answer)
    return found.value == "" and found["max-age"] == "0" and found["path"] == ""

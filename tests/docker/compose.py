"""docker-compose.yml as Compose reads it without an .env file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
BASE, GPU, MONITORING = "docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.monitoring.yml"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def text(file: str) -> str:
    return (REPOSITORY / file).read_text()


def load(file: str, **variables: str) -> dict[str, Any]:
    """Its content, with variables at the given values or their defaults."""
    content = _VARIABLE.sub(lambda found: variables.get(found[1], found[2]), text(file))
    assert "${" not in content, "a variable without a default"
    loaded: dict[str, Any] = yaml.safe_load(content)
    return loaded


def services(**variables: str) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = load(BASE, **variables)["services"]
    return made


def variables(file: str) -> set[str]:
    return {name for name, _ in _VARIABLE.findall(text(file))}


def built_by(service: Mapping[str, Any]) -> str | None:
    """The Dockerfile of its image, which one service builds for all; None for an image that is fetched."""
    for other in services().values():
        if "build" in other and other["image"] == service["image"]:
            return str(other["build"]["dockerfile"])
    return None


def seconds(duration: str) -> float:
    number, unit = duration[:-1], duration[-1]
    return float(number) * {"s": 1, "m": 60}[unit]


def has_health_check(service: Mapping[str, Any]) -> bool:
    """Its own, or its image's."""
    check = service.get("healthcheck", {})
    if check.get("disable"):
        return False
    file = built_by(service)
    return "test" in check or (file is not None and "\nHEALTHCHECK " in text(file))

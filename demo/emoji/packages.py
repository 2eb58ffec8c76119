"""Emoji of several vendors, from packages of npm: Unicode's names and keywords, and drawings as SVG.

    npm install --ignore-scripts @iconify-json/noto ...      `python -m sds_clip.demo.emoji.packages` prints the command

A drawing is found by its code points where its package tells them, else by its name: Unicode's short name of today, or
the older name of the character.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds_clip.models.errors import ModelError


@dataclass(frozen=True)
class Vendor:
    """Who drew a set, and its licence by the package's own metadata."""

    name: str
    package: str
    version: str
    licence: str
    """SPDX identifier."""
    author: str
    source: str

    @property
    def attribution(self) -> str:
        return f"{self.name} by {self.author}, {self.source}, {self.licence}"


def _vendor(name: str, version: str, licence: str, author: str, source: str) -> Vendor:
    return Vendor(name, f"@iconify-json/{name}", version, licence, author, f"https://github.com/{source}")


VENDORS = (
    _vendor("noto", "1.2.9", "Apache-2.0", "Google Inc", "googlefonts/noto-emoji"),
    _vendor("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "googlefonts/noto-emoji"),
    _vendor("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "mozilla/fxemoji"),
    _vendor("twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "jdecked/twemoji"),
    _vendor("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "EmojiTwo/emojitwo"),
    _vendor("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "microsoft/fluentui-emoji"),
)
HELD_OUT = VENDORS[-1]
"""Nothing is trained on this vendor's drawings."""
SEEN = VENDORS[:-1]
NAMES_PACKAGE, NAMES_VERSION = "emojibase-data", "17.0.0"
_COMPONENTS = 2
"""Emojibase's group of skin tones and hair."""


@dataclass(frozen=True)
class Concept:
    """What one emoji shows, by Unicode's short name and keywords."""

    code: str
    """Its code points, such as 1F408."""
    name: str
    keywords: tuple[str, ...]


class PackageError(ModelError):
    """A package is missing, of another version, or under another licence."""


def install_command() -> str:
    """The command that fetches all packages into the folder in which it runs."""
    packages = [f"{each.package}@{each.version}" for each in VENDORS] + [f"{NAMES_PACKAGE}@{NAMES_VERSION}"]
    return f"npm install --ignore-scripts --no-save {' '.join(packages)}"


def concepts(modules: Path) -> list[Concept]:
    """All emoji without skin tones, in Unicode's order."""
    records = _read(modules, NAMES_PACKAGE, "en/data.json", NAMES_VERSION)
    shown = sorted(
        (each for each in records if each.get("group", _COMPONENTS) != _COMPONENTS),
        key=lambda each: each["order"],
    )
    return [Concept(each["hexcode"], each["label"], tuple(each.get("tags", ()))) for each in shown]


def drawings(modules: Path, vendor: Vendor, wanted: list[Concept]) -> dict[str, str]:
    """Return a vendor's drawings of the wanted concepts, as SVG by code.

    Raises:
        PackageError: the package is missing, of another version, or its metadata name another licence or author.
    """
    info = _read(modules, vendor.package, "info.json", vendor.version)
    found = info["license"]["spdx"], info["author"]["name"], info["author"]["url"]
    if found != (vendor.licence, vendor.author, vendor.source):
        raise PackageError(
            f"{vendor.package} is by its own metadata {', '.join(found)}, not {vendor.attribution}."
        )
    icons = _read(modules, vendor.package, "icons.json", vendor.version)
    characters = _read(modules, vendor.package, "chars.json", vendor.version)
    bodies = {name: _svg(icons, name) for name in icons["icons"]}
    aliases = icons.get("aliases", {}).items()
    bodies |= {
        name: bodies[of["parent"]] for name, of in aliases if set(of) == {"parent"} and of["parent"] in bodies
    }
    by_name = {_letters(name): body for name, body in bodies.items()}
    return dict(_matched(wanted, characters, bodies, by_name))


def _matched(
    wanted: list[Concept],
    characters: Mapping[str, str],
    bodies: Mapping[str, str],
    by_name: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    for concept in wanted:
        code = concept.code.lower()
        icon = characters.get(code) or characters.get(code.replace("-fe0f", ""))
        body = bodies.get(icon) if icon else by_name.get(_letters(concept.name))
        if body is None:
            body = by_name.get(_letters(_former_name(concept.code)))
        if body is not None:
            yield concept.code, body


def _former_name(code: str) -> str:
    """The character's name, which is older than the emoji's; empty if there are several characters."""
    points = [chr(int(point, 16)) for point in code.split("-") if point != "FE0F"]
    return unicodedata.name(points[0], "") if len(points) == 1 else ""


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _svg(icons: dict[str, Any], name: str) -> str:
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _read(modules: Path, package: str, file: str, version: str) -> Any:
    """Read a file of a package, which must have this version."""
    try:
        has = json.loads((modules / package / "package.json").read_text(encoding="utf-8"))["version"]
        if has != version:
            raise PackageError(f"{modules / package} has version {has}. Run: {install_command()}")
        return json.loads((modules / package / file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(
            f"There is no {error.filename}. Run in {modules.parent}: {install_command()}"
        ) from error


if __name__ == "__main__":
    print(install_command())

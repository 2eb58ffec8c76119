"""Templates, and the pages of HTML that need no network, no script and no other file: escaping, and their policy."""

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def environment(folder: Path, *, is_html: bool = True) -> Environment:
    """Return an environment for the templates in a folder. Those of HTML escape what they are given."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_writable if is_html else None,
        keep_trailing_newline=not is_html,
    )


def render(template: Template, *styles: Path, **values: object) -> str:
    """Return a page with these style sheets, whose security policy allows only them and inline pictures."""
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in styles)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return template.render(**values, style=Markup(style), policy=policy)


def _writable(value: object) -> object:
    """Replace characters that UTF-8 or HTML cannot hold: lone surrogates and control characters."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNWRITABLE.sub("\ufffd", value)

"""What the browser's tests of the console share."""

import os

import pytest

from app.routes.console import FOLDER
from tools.chromium import CHROMIUM, MISSING

NEEDS_CONSOLE = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason=MISSING,
    ),
    pytest.mark.skipif(
        not (FOLDER / "index.html").exists() and "CI" not in os.environ,
        reason="the console is not built: make console",
    ),
]
ATTACK = "<img src=x onerror=alert(1)>"
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", event => window.violations.push(event.violatedDirective));
"""
"""Keeps in a page what breaks its policy."""

"""The page on pictures names the limits that hold, and each error and setting by its own name."""

import re

from sds_clip.app.settings import Settings
from sds_clip.models.images.decode import MAX_PASSES, MAX_PIXELS, ImageLimits
from tests.docs.commands import DOCS

PAGE = (DOCS / "reference" / "pictures.md").read_text(encoding="utf-8")
ERRORS = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")


def test_limits_are_those_of_the_decoder_and_of_the_settings() -> None:
    limits, settings = ImageLimits(), Settings.model_fields
    written = dict(re.findall(r"^\| ([^|]+) \| (\d[^|]*) \|", PAGE, re.MULTILINE))
    assert written == {
        "bytes of a file": f"{limits.max_bytes >> 20} MiB",
        "pixels": f"{limits.max_pixels:,}",
        "pixels on a side": f"{limits.max_side:,}",
        "longer over shorter side": f"{limits.max_aspect:g}",
        "scans of a JPEG times its pixels": f"{MAX_PASSES} times the limit on pixels",
        "pictures in a request": str(settings["max_images"].default),
        "bytes of a request": f"{settings['max_body_bytes'].default >> 20} MiB",
    }
    assert f"up to {MAX_PIXELS:,}" in PAGE


def test_errors_are_those_of_the_reference() -> None:
    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE)) <= set(re.findall(r"`(\w+)`", ERRORS))

"""Log lines: one JSON object each, whatever is in them."""

import io
import json
import logging
import subprocess
import sys

import pytest

from sds_clip.app import logs


def _logged(message: str, *arguments: object, **options: object) -> dict[str, object]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.error(message, *arguments, **options)
    (line,) = stream.getvalue().splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def test_line_holds_message_level_time_and_fields() -> None:
    line = _logged("%d images", 3, extra={"fields": {"route": "/match"}})

    assert (line["message"], line["level"], line["logger"]) == ("3 images", "error", "test")
    assert line["route"] == "/match"
    assert str(line["time"]).endswith("Z")
    assert "request_id" not in line


def test_line_holds_the_request_that_is_being_answered() -> None:
    token = logs.request_id.set("abc")
    try:
        assert _logged("x")["request_id"] == "abc"
    finally:
        logs.request_id.reset(token)


def test_newline_or_surrogate_in_a_message_stays_on_its_line() -> None:
    assert _logged("a\n{}\ud800")["message"] == "a\n{}\ud800"


def test_traceback_is_a_field() -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError as error:
        line = _logged("x", exc_info=error)

    assert "RuntimeError: broken" in str(line["traceback"])


def test_configured_process_logs_only_json_lines_on_stderr() -> None:
    # In a process of its own: the configuration is the process's.
    script = (
        "import logging, warnings; from sds_clip.app import logs; logs.configure('info');"
        "logging.getLogger('uvicorn.error').info('up'); logging.getLogger('app.access').info('in');"
        "logging.getLogger('httpcore.http11').info('chatter'); logging.getLogger('app').debug('fine');"
        "warnings.warn('old')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["uvicorn.error", "app.access", "py.warnings"]
    assert run.stdout == ""


def test_json_has_no_nan_and_no_infinity() -> None:
    record = logging.LogRecord("test", logging.INFO, __file__, 1, "x", (), None)
    record.fields = {"loss": float("nan"), "scale": [float("inf")]}
    line = logs.JsonFormatter().format(record)
    found = json.loads(line, parse_constant=pytest.fail)
    assert (found["loss"], found["scale"]) == ("NaN", ["Infinity"])

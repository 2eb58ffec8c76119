"""Log lines for people: what a terminal shows."""

import logging
import os
import pty
import subprocess
import sys

import pytest

from sds_clip.app import logs


def _text(level: int, message: str, **options: object) -> str:
    record = logging.LogRecord("test", level, __file__, 1, message, (), options.pop("exc_info", None))  # type: ignore[arg-type]
    record.__dict__.update(options)
    return logs.TextFormatter(color=False).format(record)


def test_line_holds_time_level_message_and_fields() -> None:
    words = _text(logging.INFO, "swapped", fields={"model": "demo", "version": "0123456789ab" * 5 + "0123"})
    time, level, *rest = words.split()
    assert time.count(":") == 2
    assert (level, rest) == ("info", ["swapped", "model=demo", "version=0123456789ab"])


def test_fields_that_the_message_has_are_not_repeated() -> None:
    words = _text(logging.INFO, "GET /jobs 404", fields={"status": 404, "code": "not_found", "param": None})
    assert words.split()[2:] == ["GET", "/jobs", "404", "code=not_found"]


@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, False), (logging.WARNING, True)])
def test_request_is_named_where_something_went_wrong(level: int, shown: bool) -> None:
    token = logs.request_id.set("abc")
    try:
        assert ("request_id=abc" in _text(level, "x")) is shown
    finally:
        logs.request_id.reset(token)


def test_values_cannot_draw_on_the_terminal() -> None:
    line = _text(logging.INFO, "a\x1b[2Jb\nc\ud800", fields={"route": "\x07"})
    assert all(character.isprintable() for character in line)


def _stderr(script: str, *, terminal: bool) -> str:
    reading, writing = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, **({"NO_COLOR": "1"} if terminal else {})}
    try:
        subprocess.run([sys.executable, "-c", script], stderr=writing, env=environment, check=True)
        return os.read(reading, 65536).decode()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("log_format", "terminal", "as_json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("text", False, False)],
)
def test_terminal_gets_text_and_a_file_gets_json_unless_told(
    log_format: str, terminal: bool, as_json: bool
) -> None:
    script = "import logging; from sds_clip.app import logs; "
    script += f"logs.configure('info', {log_format!r}); logging.warning('x')"
    assert _stderr(script, terminal=terminal).startswith("{") is as_json


def test_libraries_draw_no_progress_bars_between_the_lines() -> None:
    script = (
        "from sds_clip.app import logs; logs.configure(); from tqdm import tqdm; list(tqdm([1, 2])); print()"
    )
    assert _stderr(script + "; import sys; sys.stderr.write('end')", terminal=True) == "end"


def test_traceback_cannot_draw_on_the_terminal() -> None:
    try:
        raise ValueError("a\x1b[2J\x07")
    except ValueError:
        lines = _text(logging.ERROR, "x", exc_info=sys.exc_info()).split("\n")
    assert len(lines) > 2
    assert all(line.isprintable() for line in lines)


def test_value_with_spaces_cannot_look_like_another_field() -> None:
    line = _text(logging.INFO, "x", fields={"param": "a code=forged", "code": "real"})
    assert line.endswith('param="a code=forged" code=real')


def test_short_value_that_the_message_has_by_chance_is_shown() -> None:
    assert "attempt=3" in _text(logging.INFO, "3 jobs failed", fields={"attempt": 3})


def test_file_gets_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    script = (
        "import logging; from sds_clip.app import logs; logs.configure('info', 'text'); logging.warning('x')"
    )
    assert "\x1b" not in _stderr(script, terminal=False)

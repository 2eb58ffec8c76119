"""Logs to stderr: lines for people on a terminal, elsewhere one JSON object per line.

Extra fields are passed as `extra={"fields": {...}}`. Images, keys and captions are never logged.
"""

import contextvars
import datetime
import json
import logging
import os
import sys
from typing import Any, Literal

import click

Format = Literal["auto", "text", "json"]
"""`auto` is text on a terminal and JSON elsewhere."""

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
"""The id of the request being answered, set by `sds_clip.app.edge.middleware.RequestId`."""

_COLORS = {"DEBUG": "bright_black", "INFO": "green", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
# What these libraries log at level info says nothing about this service.
_QUIET = ("httpcore", "httpx", "PIL", "asyncio", "alembic", "celery", "kombu")


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # The JSON is ASCII only, so neither a newline nor a lone surrogate in a value can break the line.
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except ValueError:  # JSON has no NaN and no infinity; they become strings
            return json.dumps(json.loads(json.dumps(line, default=str), parse_constant=str))


class TextFormatter(logging.Formatter):
    """Renders a record for a person: time, level, message, then in grey the fields that the message lacks.

    Hashes are shortened to 12 characters. The request's id is shown at level warning and above.
    """

    def __init__(self, *, color: bool = True) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = self._styled(f"{record.levelname.lower():8}", _COLORS.get(record.levelname))
        fields = dict(getattr(record, "fields", {}))
        if record.levelno >= logging.WARNING and (current := request_id.get()) is not None:
            fields["request_id"] = current
        message = record.getMessage()
        words = set(message.split())
        details = " ".join(
            f"{name}={_short(value)}" for name, value in fields.items() if not _is_said(name, value, words)
        )
        line = f"{self._styled(time, 'bright_black')} {level} {_printable(message)}"
        if details:
            line += "  " + self._styled(_printable(details), "bright_black")
        if record.exc_info:
            line += "".join(
                f"\n{_printable(each)}" for each in self.formatException(record.exc_info).split("\n")
            )
        return line

    def _styled(self, text: str, color: str | None) -> str:
        return click.style(text, fg=color) if self._color else text


def configure(level: str = "info", log_format: Format = "auto") -> None:
    """Send this process's logs, including uvicorn's and Python's warnings, to stderr.

    Raises: ValueError for a level that logging does not know.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(TextFormatter(color=color) if as_text else JsonFormatter())
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers = [handler]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    # Libraries draw progress bars while they load weights; on stderr these would break up the log lines.
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _is_said(name: str, value: object, words: set[str]) -> bool:
    """Whether the message has the field. A short value that is in it by chance does not count."""
    text = str(value)
    return value is None or (
        text in words and (len(text) > 3 or name in words or name in ("method", "status"))
    )


def _short(value: object) -> str:
    """The value, in quotes if it has spaces, so that it cannot look like another field."""
    text = str(value)
    if any(character.isspace() for character in text):
        return json.dumps(text, ensure_ascii=False)
    return text[:12] if len(text) in (40, 64) and text.isalnum() else text


def _printable(text: str) -> str:
    """The text with control characters and lone surrogates escaped, so that no value can draw on the terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )

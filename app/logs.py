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
"""The id of the request being answered, set by `app.middleware.RequestId`."""

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
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Renders a record for a person: time, level, message, then in grey the fields that the message lacks.

    Hashes are shortened to 12 characters. The request's id is shown at level warning and above.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = click.style(f"{record.levelname.lower():8}", fg=_COLORS.get(record.levelname))
        fields = dict(getattr(record, "fields", {}))
        if record.levelno >= logging.WARNING and (current := request_id.get()) is not None:
            fields["request_id"] = current
        message = record.getMessage()
        said = {"None", *message.split()}
        details = " ".join(
            f"{name}={_short(value)}" for name, value in fields.items() if str(value) not in said
        )
        line = f"{click.style(time, fg='bright_black')} {level} {_printable(message)}"
        if details:
            line += "  " + click.style(_printable(details), fg="bright_black")
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return line


def configure(level: str = "info", log_format: Format = "auto") -> None:
    """Send this process's logs, including uvicorn's and Python's warnings, to stderr.

    Raises: ValueError for a level that logging does not know.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
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


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) in (40, 64) and text.isalnum() else text


def _printable(text: str) -> str:
    """The text with control characters and lone surrogates escaped, so that no value can draw on the terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )

"""Logs one JSON object a line to stderr, each with the id of its request.

Extra fields are passed as `extra={"fields": {...}}`. Images, keys and captions are never logged.
"""

import contextvars
import datetime
import json
import logging
import sys
from typing import Any

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
"""The id of the request being answered, set by `app.middleware.RequestId`."""


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


def configure(level: str = "info") -> None:
    """Send this process's logs, including uvicorn's and Python's warnings, to stderr as JSON lines.

    Raises: ValueError for a level that logging does not know.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers = [handler]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    # What these libraries log at level info says nothing about this service.
    for name in ("httpcore", "httpx", "PIL", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)

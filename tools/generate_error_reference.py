"""Generates docs/errors.md, the reference of all error codes, from the classes that have them.

`python -m tools.generate_error_reference` writes it. With `--check` nothing is written, and the exit status is 1
if it is out of date.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import app
import models
from app.errors import JOB_FAILURES, ServiceError
from models.errors import ModelError
from models.images import ImageError
from sds_clip.client.errors import CLIENT_CODES

TARGET = Path(__file__).parents[1] / "docs" / "errors.md"

Error = TypeVar("Error", bound=Exception)
Row = tuple[str, ...]

PAGE = """\
# Error codes

<!-- Generated from the classes by `make errors`. Edit their docstrings instead. -->

Programs read an error's `code`. People read its `message`, whose wording may change. The body of an error is
`{{"error": {{"type", "code", "message", "param"}}}}`, with `index` if one item of a list is at fault. "Retry" says
whether the same request may succeed later.

## The service

{service}

## Images

The image decoder has these further codes. The service answers with status 422. With `on_error: skip`, it puts the error
in the place of the image instead.

{images}

## Models and data

These codes say why weights, data or options cannot be used. You find them in the `error` of a failed job, in the
`problems` of a data set, and in `last_failed_load` of `GET /models/status`. The same request would fail again.

{models}

## Failures of jobs

A job's `error.code` is one of the codes above or one of these. [Decision 20](decisions/0020-what-ends-a-job.md) says
which failures are retried automatically. `out_of_memory` is retryable in an answer, but not in a job.

{jobs}

## The client

`ClientError.code` is the service's code, or one of these. It is None if another program answered, such as a proxy.

{client}
"""


def generate() -> str:
    """The page."""
    return PAGE.format(
        service=_table(("code", "status", "retry", "meaning"), service_rows()),
        images=_table(("code", "meaning"), _own_codes(_below(ImageError))),
        models=_table(("code", "meaning"), model_rows()),
        jobs=_table(("code", "retry", "meaning"), job_rows()),
        client=_table(("code", "meaning"), CLIENT_CODES.items()),
    )


def service_rows() -> list[Row]:
    """The errors of app/errors.py. One that passes on the code of another error is not listed again."""
    rows: dict[str, Row] = {}
    for kind in _below(ServiceError):
        for code in kind.codes or (kind.code,):
            rows.setdefault(code, (code, str(kind.status), _yes_no(kind.retryable), _meaning(kind)))
    return sorted(rows.values())


def model_rows() -> list[Row]:
    """The ModelErrors of `models` and `app`, except those of images."""
    for package in (models, app):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("app.store.migrations."):  # only alembic can run these
                importlib.import_module(module.name)
    kinds: list[type[ModelError]] = [ModelError, *_below(ModelError)]
    return sorted(_own_codes(kind for kind in kinds if not issubclass(kind, ImageError)))


def job_rows() -> Iterator[Row]:
    return ((code, _yes_no(failure.retryable), failure.meaning) for code, failure in JOB_FAILURES.items())


def _own_codes(kinds: Iterable[type[ModelError]]) -> Iterator[Row]:
    return ((kind.code, _meaning(kind)) for kind in kinds if "code" in vars(kind))


def _below(kind: type[Error]) -> Iterator[type[Error]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _meaning(kind: type[Exception]) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _table(head: Row, rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *((f"`{code}`", *rest) for code, *rest in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.generate_error_reference", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail where the page is out of date"
    )
    page = generate()
    if not parser.parse_args().check:
        TARGET.write_text(page)
    elif not TARGET.exists() or TARGET.read_text() != page:
        print("docs/errors.md is out of date. Run `make errors`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The reference of error codes, from the classes that have them."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import TypeVar

from sds_clip import app, models
from sds_clip.app.errors import JOB_FAILURES, ServiceError
from sds_clip.client.errors import CLIENT_CODES
from sds_clip.models.errors import ModelError
from sds_clip.models.images.decode import ImageError
from tools.reference.markdown import table

Error = TypeVar("Error", bound=Exception)
Row = tuple[str, ...]

PAGE = """\
# Error codes

<!-- Generated from the classes by `make errors`. Edit their docstrings instead. -->

Programs read an error's `code`. People read its `message`, whose wording may change. The body of an error is
`{{"error": {{"type", "code", "message", "param"}}}}`. `param` names the field if a single one is at fault, and `index`
the item of a list. If a field within an item is at fault, `param` is the whole place, such as
`inputs[3].content[0].image_url.url`, and there is no `index`. If several fields are wrong, `errors` lists
up to 20 of them, the first one included, with `message`, `param` and `index`.

"Retry" is "yes" if the cause may pass without a change by you. After `alias_moved`, read the alias first, because the
generation that you sent will not return. `image_url_failed` and `image_url_timeout` are an exception. They have "no",
although the other host may recover. Check the URL first. If it is right, try again later.

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

A job's `error.code` is one of the codes above or one of these. [Decision 20](../decisions/0020-what-ends-a-job.md) says
which failures are retried automatically. Three codes have a meaning in more than one table: `out_of_memory` (retryable
in an answer, but not in a job), `invalid_text` and `version_damaged`.

{jobs}

## The client

`ClientError.code` is the service's code, or one of these. It is None if another program answered, such as a proxy.

{client}
"""


def page() -> str:
    return PAGE.format(
        service=table(("code", "status", "retry", "meaning"), service_rows()),
        images=table(("code", "meaning"), _own_codes(_below(ImageError))),
        models=table(("code", "meaning"), model_rows()),
        jobs=table(("code", "retry", "meaning"), job_rows()),
        client=table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in CLIENT_CODES.items()]),
    )


def service_rows() -> list[Row]:
    """The errors of app/errors.py. One that passes on the code of another error is not listed again."""
    rows: dict[str, Row] = {}
    for kind in _below(ServiceError):
        for code in kind.codes or (kind.code,):
            rows.setdefault(code, _row(kind, code))
    return sorted(rows.values())


def _row(kind: type[ServiceError], code: str) -> Row:
    return f"`{code}`", str(kind.status), _yes_no(kind.retryable), kind.codes.get(code) or _meaning(kind)


def model_rows() -> list[Row]:
    """The ModelErrors of `models` and `app`, except those of images."""
    for package in (models, app):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("sds_clip.app.store.migrations."):  # only alembic can run these
                importlib.import_module(module.name)
    kinds: list[type[ModelError]] = [ModelError, *_below(ModelError)]
    return sorted(_own_codes(kind for kind in kinds if not issubclass(kind, ImageError)))


def job_rows() -> Iterator[Row]:
    return (
        (f"`{code}`", _yes_no(failure.retryable), failure.meaning) for code, failure in JOB_FAILURES.items()
    )


def _own_codes(kinds: Iterable[type[ModelError]]) -> Iterator[Row]:
    return ((f"`{kind.code}`", _meaning(kind)) for kind in kinds if "code" in vars(kind))


def _below(kind: type[Error]) -> Iterator[type[Error]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _meaning(kind: type[Exception]) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"

"""The extras of the package: what a command needs beyond the client."""

from importlib.util import find_spec

import click

# Packages of each extra, by the names under which they are imported: enough to tell whether it is installed.
_SERVE = ("torch", "open_clip", "fastapi", "sqlalchemy", "pydantic")
_JOBS = (*_SERVE, "alembic", "celery", "redis")
_PACKAGES = {
    "serve": _SERVE,
    "jobs": _JOBS,
    "tables": ("pyarrow",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "train": (*_JOBS, "accelerate", "diffusers"),
    "onnx": (*_SERVE, "onnx", "onnxruntime", "onnxscript"),
}

TRACKERS = ("tensorboard", "mlflow")


def how_to_get(extra: str) -> str:
    return f"pip install 'sds-clip[{extra}]'"


def missing_packages(extra: str) -> list[str]:
    """The packages that the extra lacks here; none if it is installed."""
    return [name for name in _PACKAGES[extra] if find_spec(name) is None]


def require_extra(extra: str, what: str) -> None:
    """Raise click.ClickException, which names what needs the extra, if it is not installed."""
    if missing := missing_packages(extra):
        raise click.ClickException(
            f"{what} needs the extra `{extra}`. Install it with {how_to_get(extra)}. Missing: {', '.join(missing)}."
        )

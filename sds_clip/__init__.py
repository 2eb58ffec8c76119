"""The command line, and a client for the service: `from sds_clip import Client`. The client is imported lazily."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sds_clip.client import AsyncClient, AsyncJob, Client, Job, embeddings, scores
    from sds_clip.client.errors import (
        APIError,
        ClientError,
        ConnectionFailed,
        JobFailed,
        UnreadableFile,
        WaitTimeout,
    )

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Job",
    "JobFailed",
    "UnreadableFile",
    "WaitTimeout",
    "embeddings",
    "scores",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sds_clip import client

    return getattr(client, name)

"""Where the service is, and how it is spoken to."""

import os
from typing import Any

import httpx

from sds_clip.client.events import SILENCE_S

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 90.0
"""For an answer: longer than the service's own deadline."""
CONNECT_TIMEOUT_S = 10.0
STREAM_TIMEOUT = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S)


def options(url: str | None, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Of httpx's clients; what is not given is SDS_CLIP_URL and SDS_CLIP_API_KEY."""
    key = api_key or os.environ.get("SDS_CLIP_API_KEY")
    return {
        "base_url": url or os.environ.get("SDS_CLIP_URL") or DEFAULT_URL,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
    }

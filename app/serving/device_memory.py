"""The memory of the GPUs that the models are on."""

from collections.abc import Iterable

import torch
from prometheus_client.core import Metric

from sds_clip.app.metrics import gauge


def device_memory(devices: Iterable[torch.device]) -> list[Metric]:
    """What this process has allocated and reserved, and what the whole device has free and in total."""
    values: dict[tuple[str, ...], float] = {}
    for device in devices:
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            states = {
                "allocated": torch.cuda.memory_allocated(device),
                "reserved": torch.cuda.memory_reserved(device),
                "free": free,
                "total": total,
            }
            values |= {(str(device), state): size for state, size in states.items()}
    if not values:
        return []
    help = "Memory of a GPU, in bytes: allocated and reserved by this process; free and in total."
    return [gauge("device_memory_bytes", help, values, ("device", "state"))]

"""The disk reserve: free space kept so that running jobs can finish.

Below it the service accepts nothing new and workers write no checkpoint.
"""

import shutil
from pathlib import Path

from sds_clip.app.errors import DiskReserve

_MIB = 2**20
_RETRY_AFTER_S = 60


def check_reserve(folder: Path, reserve_bytes: int, wanted_bytes: int = 0) -> None:
    """Raise DiskReserve if `wanted_bytes` more on the folder's disk would leave less than the reserve."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes - wanted_bytes < reserve_bytes:
        wanted = f", {wanted_bytes // _MIB} MiB are needed," if wanted_bytes else ""
        raise DiskReserve(
            f"The server's disk has {free_bytes // _MIB} MiB free{wanted} and {reserve_bytes // _MIB} MiB must "
            "stay in reserve (disk_reserve_bytes). Free some space first.",
            retry_after_s=_RETRY_AFTER_S,
        )

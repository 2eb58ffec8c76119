"""`python -m sds_clip.worker.self_test QUEUE DEVICES JOBS_DIR`: imports what jobs import, writes a file and computes.

It ends with an error if a job could not do so.
"""

import os
import sys
import tempfile

from sds_clip.app.store.states import JobKind
from sds_clip.worker.job_process import import_runner


def main(queue: str, devices: str, jobs_dir: str) -> None:
    with tempfile.TemporaryFile(dir=jobs_dir) as file:
        file.write(bytes(2**20))
        os.fsync(file.fileno())
    import_runner(JobKind(queue))
    import torch

    from sds_clip.models.clip.precision import choose_device

    for device in devices.split(","):
        ones = torch.ones(256, 256, device=choose_device(device))
        if (ones @ ones).sum().item() != 256**3:
            raise RuntimeError(f"{ones.device} computes wrong numbers")


if __name__ == "__main__":
    main(*sys.argv[1:])

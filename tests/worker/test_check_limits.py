"""What the process that checks data sets may take."""

import subprocess
import sys

from sds_clip.app.datasets.archive_limits import ArchiveLimits

LIMITED = """
import resource, sys
from sds_clip.worker.check_job import limit_resources

limit_resources()
print(sorted({"torch", "open_clip"} & set(sys.modules)))
import sds_clip.worker.benchmarks
print("open_clip" in sys.modules)
print(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
try:
    bytearray(2**44)
except MemoryError:
    print("no memory")
"""


def test_process_that_checks_is_light_and_has_limits_on_files_and_memory() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    of_pairs, of_benchmarks, max_file_bytes, memory = done.stdout.split("\n")[:4]
    assert (of_pairs, of_benchmarks) == ("[]", "False")
    assert ArchiveLimits().max_file_bytes <= int(max_file_bytes) < 2**40
    assert memory == "no memory"

"""What a control group lets this process have, in files as Linux writes them."""

from pathlib import Path

import pytest

from sds_clip.models.machine import usable_bytes

MIB = 2**20


def _written(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * MIB}\n"},
        {
            "proc/self/cgroup": "0::/pod/one\n",
            "sys/fs/cgroup/pod/memory.max": f"{64 * MIB}\n",
            "sys/fs/cgroup/pod/one/memory.max": "max\n",
        },
        {
            "proc/self/cgroup": "4:cpu,memory:/docker/1\n3:cpuset:/\n",
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{64 * MIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
        {  # a container that sees its own group as the outermost
            "proc/self/cgroup": "4:memory:/docker/1\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{64 * MIB}\n",
        },
    ],
    ids=["v2", "v2 around", "v1", "v1 outermost"],
)
def test_limit_of_a_control_group_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_bytes(_written(tmp_path, files)) == 64 * MIB


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    machine = usable_bytes(tmp_path)
    files = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}
    assert usable_bytes(_written(tmp_path, files)) == machine > 64 * MIB

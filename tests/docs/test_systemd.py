"""The systemd units of the docs: systemd accepts them, and they leave enough time for a stop."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sds_clip.app.settings import Settings
from sds_clip.commands.worker import QUEUES
from sds_clip.worker.config import WorkerConfig
from tests.docker.compose import services
from tests.docs.commands import DOCS
from tests.docs.test_commands import parse

UNITS = DOCS / "how-to" / "systemd"
SERVICE, WORKER = "sds-clip.service", "sds-clip-worker@.service"
STARTED = [SERVICE, *(WORKER.replace("@", f"@{queue}") for queue in QUEUES)]
PROGRAM = "/opt/sds-clip/bin/sds-clip"
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 25
"""Tenths of systemd's scale, on which a unit without any protection has 96."""


def directives(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (UNITS / unit).read_text(encoding="utf-8"), re.MULTILINE))


def analyze(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run systemd-analyze over the units, with a program that is there."""
    for unit in (SERVICE, WORKER):
        text = (UNITS / unit).read_text(encoding="utf-8")
        (folder / unit).write_text(text.replace(PROGRAM, "/bin/true"))
    units = [str(folder / unit) for unit in STARTED]
    return subprocess.run([str(ANALYZE), *arguments, *units], capture_output=True, text=True, timeout=120)


needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not installed: apt install systemd"
)


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    done = analyze(tmp_path, "verify", "--man=no")
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_units_are_confined(tmp_path: Path) -> None:
    done = analyze(tmp_path, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", [SERVICE, WORKER])
def test_unit_starts_the_program_of_the_docs(unit: str) -> None:
    program, *arguments = directives(unit)["ExecStart"].replace("%i", QUEUES[0]).split()
    assert program == PROGRAM
    parse(arguments)


def test_a_stop_takes_as_long_as_in_containers() -> None:
    api, worker = services()["api"], services()["worker-finetune"]
    assert f"{directives(SERVICE)['TimeoutStopSec']}s" == api["stop_grace_period"]
    assert f"{directives(WORKER)['TimeoutStopSec']}s" == worker["stop_grace_period"]
    assert int(directives(SERVICE)["TimeoutStopSec"]) > Settings.model_fields["drain_timeout_s"].default
    assert int(directives(WORKER)["TimeoutStopSec"]) > WorkerConfig.stop_grace_s


@pytest.mark.parametrize("unit", [SERVICE, WORKER])
def test_device_rules_do_not_hide_a_gpu_from_a_worker(unit: str) -> None:
    # ProtectClock and DeviceAllow hide every device that they do not name.
    hiding = {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy"} & directives(unit).keys()
    assert hiding == ({"PrivateDevices"} if unit == SERVICE else set())


def test_settings_are_there_and_files_lie_where_the_units_may_write() -> None:
    environment = (UNITS / "sds-clip.env").read_text(encoding="utf-8") + directives(SERVICE)["Environment"]
    known = {*Settings.model_fields, *WorkerConfig.__dataclass_fields__}
    assert {name.lower() for name in re.findall(r"\bSDS_CLIP_([A-Z_]+)=", environment)} <= known
    for unit in (SERVICE, WORKER):
        assert directives(unit)["StateDirectory"] == "sds-clip"
        assert directives(unit)["EnvironmentFile"] == "/etc/sds-clip/sds-clip.env"
    assert set(re.findall(r"=(/[\w-]+/[\w-]+/[\w-]+)", environment)) == {"/var/lib/sds-clip"}

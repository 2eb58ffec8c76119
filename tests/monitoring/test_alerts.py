"""Each alert fires when it should and not before, by promtool."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.monitoring.prometheus import MONITORING, PROMTOOL, alerts, needs_promtool


@dataclass
class Case:
    """Samples a minute apart, in promtool's notation, and two moments: the alert must fire at the second alone."""

    series: dict[str, str]
    quiet_at: str
    fires_at: str
    labels: dict[str, str] = field(default_factory=dict)


FINETUNE = {"kind": "finetune"}
SERVICE = {"job": "sds-clip", "instance": "api:8000"}
WORKER = {"job": "sds-clip-worker", "instance": "worker:9100"}
ON_SERVICE, ON_WORKER = 'job="sds-clip",instance="api:8000"', 'job="sds-clip-worker",instance="worker:9100"'

CASES = {
    "SdsClipDown": Case({f"up{{{ON_SERVICE}}}": "1x5 0x5"}, "5m", "8m", SERVICE),
    "SdsClipErrors": Case(
        {
            'sds_clip_requests_total{route="/match",status="200"}': "0+98x40",
            'sds_clip_requests_total{route="/match",status="500"}': "0x10 0+2x30",
            'sds_clip_requests_total{route="/ready",status="503"}': "0+50x40",  # probes do not count
        },
        "10m",
        "30m",
    ),
    "SdsClipOverloaded": Case(
        {'sds_clip_throttled_total{limit="overloaded"}': "0x10 0+6x20"},
        "10m",
        "25m",
        {"limit": "overloaded"},
    ),
    "SdsClipSlow": Case(
        {
            'sds_clip_request_seconds_bucket{route="/match",le="1"}': "0+60x10 600x30",
            'sds_clip_request_seconds_bucket{route="/match",le="5"}': "0+60x40",
            'sds_clip_request_seconds_bucket{route="/match",le="+Inf"}': "0+60x40",
        },
        "10m",
        "35m",
    ),
    "SdsClipRegistryAway": Case(
        {f"sds_clip_alias_source_up{{{ON_SERVICE}}}": "1x5 0x10"}, "8m", "13m", SERVICE
    ),
    "SdsClipSwapFailed": Case(
        {'sds_clip_swaps_total{model="default",result="failed"}': "0x5 1x10"},
        "4m",
        "7m",
        {"model": "default"},
    ),
    "SdsClipDatabaseAway": Case(
        {'sds_clip_store_up{instance="a"}': "1x3 0x10", 'sds_clip_store_up{instance="b"}': "1x8 0x10"},
        "8m",
        "12m",
    ),
    "SdsClipDataFolder": Case({f"sds_clip_data_folder_up{{{ON_SERVICE}}}": "1x5 0x10"}, "6m", "9m", SERVICE),
    "SdsClipNoWorker": Case(
        {
            'sds_clip_jobs{kind="finetune",status="queued",instance="a"}': "1x20",
            'sds_clip_workers{kind="finetune",alive="true",instance="a"}': "1x5 0x15",
            'sds_clip_workers{kind="evaluate",alive="true",instance="a"}': "1x20",
        },
        "8m",
        "13m",
        FINETUNE,
    ),
    "SdsClipWorkerOut": Case(
        {
            'sds_clip_workers_out{kind="check",instance="a"}': "0x15",
            'sds_clip_slot_out{kind="check",instance="b"}': "0x5 1x10",
            'sds_clip_workers_out{kind="evaluate",instance="a"}': "0x15",
        },
        "5m",
        "8m",
        {"kind": "check"},
    ),
    "SdsClipQueueOld": Case(
        {'sds_clip_queue_age_seconds{kind="finetune",instance="a"}': "0+3600x10"}, "7m", "13m", FINETUNE
    ),
    "SdsClipLeaseLapsed": Case(
        {'sds_clip_lease_left_seconds{kind="finetune",job="sds-clip"}': "50x5 -30x10"}, "8m", "13m", FINETUNE
    ),
    "SdsClipJobFailed": Case(
        {
            'sds_clip_failed_jobs_total{kind="finetune",instance="a"}': "4x5 5x5",
            'sds_clip_failed_jobs_total{kind="finetune",instance="b"}': "4x6 5x4",
            'sds_clip_failed_jobs_total{kind="evaluate",instance="a"}': "7x10",
        },
        "5m",
        "8m",
        FINETUNE,
    ),
    "SdsClipInterruptions": Case(
        {'sds_clip_interruptions_total{kind="finetune",reason="lapsed"}': "0+1x30"}, "4m", "20m", FINETUNE
    ),
    "SdsClipWorkerDown": Case({f"up{{{ON_WORKER}}}": "1x5 0x10"}, "7m", "9m", WORKER),
    "SdsClipWorkerCutOff": Case(
        {f"sds_clip_heartbeat_age_seconds{{{ON_WORKER}}}": "5x5 70x5"}, "6m", "9m", WORKER
    ),
    "SdsClipClockSkew": Case(
        {f"sds_clip_clock_skew_seconds{{{ON_WORKER}}}": "0x5 -9x10"}, "8m", "13m", WORKER
    ),
    "SdsClipDiskLow": Case(
        {
            f"sds_clip_disk_free_bytes{{{ON_SERVICE}}}": "30x5 15x10",
            f"sds_clip_disk_reserve_bytes{{{ON_SERVICE}}}": "10x15",
        },
        "8m",
        "13m",
        SERVICE,
    ),
    "SdsClipDiskReserve": Case(
        {
            f"sds_clip_disk_free_bytes{{{ON_SERVICE}}}": "11x5 9x10",
            f"sds_clip_disk_reserve_bytes{{{ON_SERVICE}}}": "10x15",
        },
        "5m",
        "9m",
        SERVICE,
    ),
}


def promtool(*arguments: str) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_configuration_and_rules_are_valid() -> None:
    promtool("check", "config", str(MONITORING / "prometheus.yml"))


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == alerts().keys()


@needs_promtool
@pytest.mark.parametrize("name", CASES)
def test_alert_fires_when_it_should_and_not_before(name: str, tmp_path: Path) -> None:
    case, rule = CASES[name], alerts()[name]
    fired = {"exp_labels": rule["labels"] | case.labels, "exp_annotations": rule["annotations"]}
    looks = [(case.quiet_at, []), (case.fires_at, [fired])]
    content = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": one, "values": values} for one, values in case.series.items()],
                "alert_rule_test": [
                    {"alertname": name, "eval_time": moment, "exp_alerts": expected}
                    for moment, expected in looks
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(content))
    promtool("test", "rules", str(file))

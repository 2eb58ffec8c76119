"""Measures how long hostile bodies hold up another caller, and how much memory they take.

One key sends bodies of up to 32 MiB, which a parser would take long for, one after the other. Another key asks at
random times for something that takes no computing. Its longest wait counts from when the request was due. Memory is
the service's resident peak while the body is there, less what was resident before. Both are on the service's cores.
"""

import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import report, servers
from bench.load import Call, OpenSpec, run_open_load
from bench.memory import peak_mib
from bench.options import cache_option, option, parse
from bench.report import at_most, note
from sds_clip.app.keys import create_key
from sds_clip.models.markdown import markdown_table

KNOWN = Call("embed", "/embed", json.dumps({"texts": ["a dog"]}))
NOTHING = "nothing"
MIB = 2**20
FORM = "multipart/form-data; boundary=edge"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    times: int = option(5, "How often each body is sent.", quick=1)
    rate: float = option(100.0, "The other caller's requests in a second.")
    mib: int = option(31, "Size of the bodies.", quick=2)
    cache: Path = cache_option()


@dataclass(frozen=True)
class Found:
    """What one body did. `sent_bytes` is its size, and `waits_ms` are the other caller's."""

    sent_bytes: int
    answers: frozenset[str]
    waits_ms: list[float]
    grown_bytes: int


def bodies(size: int) -> dict[str, bytes]:
    """Bodies of about `size` bytes, by what they are made of."""
    texts = b'{"images":["a"],"texts":[%b]}'

    def filled(unit: bytes) -> bytes:
        return unit * (size // len(unit))

    fields = b",".join(b'"k%d":1' % number for number in range(size // 12))
    part = b'--edge\r\nContent-Disposition: form-data; name="texts"\r\n\r\na\r\n'
    return {
        "unknown fields": b"{%b}" % fields,
        "items": texts % (filled(b'"",') + b'""'),
        "objects": texts % (filled(b"{},") + b"{}"),
        "a name": b'{"' + filled(b"A") + b'":1}',
        "names": b"{%b}" % b",".join(b'"%d%b":1' % (number, b"A" * 2**17) for number in range(20)),
        "a text of an unknown field": b'{"k":"' + filled(b"A") + b'"}',
        "nested lists": filled(b"["),
        "nested objects": filled(b'{"a":'),
        "a long number": texts % filled(b"1"),
        "numbers": texts % (filled(b"1,") + b"1"),
        "spaces": texts % (filled(b" ") + b'"a"'),
        "a text of escapes": texts % (b'"' + filled(b"\\n") + b'"'),
        "a text of backslashes": texts % (b'"' + filled(b"\\\\") + b'"'),
        "a text of wide characters": texts % (b'"' + filled("é".encode()) + b'"'),
        "texts of wide escapes": texts % (filled(b'"' + b"\\u00e9" * 600 + b'",') + b'"a"'),
        "an image that is none": b'{"images":["' + filled(b"A") + b'"],"texts":["a"]}',
        "an image of escapes": b'{"images":["' + filled(b"\\/") + b'"],"texts":["a"]}',
        "fields of a form": filled(part) + b"--edge--\r\n",
    }


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.bodies", __doc__, arguments)
    heading = report.heading("bench.bodies", arguments)
    folder = plan.cache / "bodies"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    other, sender = (create_key(folder / "keys.json", name, ["infer"]) for name in ("other", "sender"))
    server = servers.sds_clip("bodies", "serve", "--model", "demo")
    with servers.running(
        server,
        plan.cache,
        SDS_CLIP_DATA_DIR=str(folder / "data"),
        SDS_CLIP_KEYS_FILE=str(folder / "keys.json"),
    ) as running:
        found = {
            name: measure(plan, running, other, sender, body)
            for name, body in [(NOTHING, b""), *bodies(plan.mib * MIB).items()]
        }
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. Each body is sent {plan.times} times; the other caller asks "
        f"{plan.rate:g} times a second.",
        table(found),
        targets=targets(found),
    )


def measure(plan: Plan, running: servers.Running, other: str, sender: str, body: bytes) -> Found:
    note(f"a body of {len(body) / MIB:.1f} MiB")
    kind = FORM if body.startswith(b"--") else "application/json"
    headers = {"Authorization": f"Bearer {sender}", "Content-Type": kind}
    before = servers.resident_bytes_of(running.pid)
    Path(f"/proc/{running.pid}/clear_refs").write_text("5")  # the peak begins anew
    answers = set()
    asking = OpenSpec(running.port, [KNOWN], [__file__], plan.rate, 1.0 + plan.times, key=other)
    with ThreadPoolExecutor(1) as thread:
        waits = thread.submit(run_open_load, asking)
        time.sleep(1.0)  # the other process starts
        for _ in range(plan.times):
            if body:
                answer = httpx.post(
                    f"{running.url}/match", content=body, headers=headers, timeout=120, verify=False
                )
                answers.add(f"{answer.status_code} {answer.json()['error']['code']}")
            time.sleep(0.3)
        known = waits.result()
    assert {answer.status for answer in known} == {"200"}, "the other caller must be answered"
    grown = int(peak_mib(running.pid) * MIB) - before
    return Found(len(body), frozenset(answers), [1000 * answer.seconds for answer in known], grown)


def table(found: dict[str, Found]) -> str:
    rows = [
        [
            name,
            f"{each.sent_bytes / MIB:.1f}",
            ", ".join(sorted(each.answers)),
            *(f"{report.percentile(each.waits_ms, percent):.0f}" for percent in (50, 100)),
            f"{each.grown_bytes / each.sent_bytes:.2f}" if each.sent_bytes else "",
        ]
        for name, each in found.items()
    ]
    columns = (
        "a body of",
        "MiB",
        "answer",
        "other caller's p50 ms",
        "its longest wait, ms",
        "memory over the body",
    )
    return markdown_table(columns, rows, text=(0, 2))


def targets(found: dict[str, Found]) -> Sequence[report.Target]:
    sent = [each for each in found.values() if each.sent_bytes]
    return [
        at_most("longest wait beside a body, ms", max(max(each.waits_ms) for each in sent), 100),
        at_most("memory over the body", max(each.grown_bytes / each.sent_bytes for each in sent), 3),
    ]


if __name__ == "__main__":
    main()

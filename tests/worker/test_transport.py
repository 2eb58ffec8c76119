"""The transport drops what it cannot read, and keeps its connection."""

import base64
import contextlib
import json
from typing import Any

import kombu.transport
import pytest
import redis
from kombu import Connection, Consumer, Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

from sds_clip.worker.transport import install
from sds_clip.worker.valkey import Valkey


def message(text: str, **properties: Any) -> str:
    info = {"exchange": "", "routing_key": ""}
    properties = {
        "body_encoding": "base64",
        "delivery_tag": text,
        "delivery_mode": 2,
        "delivery_info": info,
        **properties,
    }
    body = base64.b64encode(json.dumps(text).encode()).decode()
    kind = {"content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps({"body": body, "headers": {}, "properties": properties, **kind})


def drain(connection: Connection) -> None:
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=0.5)


MALFORMED = {
    "no properties": "{}",
    "no delivery tag": json.dumps({"properties": {}}),
    "no exchange": message("bad", delivery_info={}),
    "no routing key": message("bad", delivery_info={"exchange": ""}),
    "no object": "[1]",
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("queue", name) for name in MALFORMED),
        # The delivery of what is broadcast is not acknowledged, so nobody looks at it.
        *(("broadcast", name) for name in ("no properties", "no delivery tag", "no object")),
    ],
)
def test_malformed_message_is_dropped_and_the_connection_stays(
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
) -> None:
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(TRANSPORT_ALIASES, scheme, TRANSPORT_ALIASES[scheme])
    # Kombu keeps what another test of this process has used.
    monkeypatch.setattr(kombu.transport, "_transport_cache", {})
    install()
    exchange = Exchange("all", type="fanout") if kind == "broadcast" else Exchange("")
    queue = Queue(kind, exchange, durable=False, no_ack=kind == "broadcast")
    received: list[str] = []
    with (
        Connection(valkey.url) as connection,
        redis.Redis(unix_socket_path=str(valkey.socket)) as client,
    ):

        def take(body: str, taken: Any) -> None:
            received.append(body)
            if kind == "queue":
                taken.ack()

        with Consumer(connection, [queue], callbacks=[take], accept=["json"], no_ack=kind == "broadcast"):
            if kind == "broadcast":
                while client.publish("/0.all", message("first")) == 0:
                    drain(connection)
            for text in (MALFORMED[name], message("good")):
                if kind == "broadcast":
                    client.publish("/0.all", text)
                else:
                    client.lpush(kind, text)
            while "good" not in received:
                drain(connection)
    assert set(received) <= {"first", "good"}
    assert caplog.text.count("cannot be read and was dropped") == 1

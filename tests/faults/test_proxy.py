"""The network between a process and its servers, cut, stalled and healed."""

import socket
import threading
from collections.abc import Iterator

import pytest

from bench.faults.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[Proxy]:
    """A proxy before a server that says what it hears."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    proxy = Proxy(lambda: socket.create_connection(listener.getsockname()))
    yield proxy
    proxy.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def test_cut_connection_ends_and_new_ones_are_refused_until_it_heals(echo: Proxy) -> None:
    with connect(echo) as connection:
        assert ask(connection, b"a") == b"a"
        echo.cut()
        assert connection.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(echo)
    echo.heal()
    with connect(echo) as connection:
        assert ask(connection, b"b") == b"b"


def test_stalled_connection_says_nothing_and_loses_nothing(echo: Proxy) -> None:
    with connect(echo) as connection:
        assert ask(connection, b"a") == b"a"
        echo.stall()
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(connection, b"b")
        echo.heal()
        connection.settimeout(10)
        assert connection.recv(100) == b"b"

"""A TCP proxy that can be cut or stalled, as the network between a process and its database or broker."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Literal

_CHUNK = 65536
Outage = Literal["cut", "stall"]


class Proxy:
    """Listens on a free local port and forwards connections. `connect` opens one to the server."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._accept_in_thread()

    def cut(self) -> None:
        """Close every connection and refuse new ones."""
        self._stop_listening()
        self._drop()

    def stall(self) -> None:
        """Keep accepting connections but forward nothing, not even their end."""
        self._flows.clear()

    def heal(self) -> None:
        """Forward normally again."""
        if self._listener.fileno() == -1:
            self._listener = _listen(self.port)
            self._accept_in_thread()
        self._flows.set()

    @contextlib.contextmanager
    def away(self, how: Outage) -> Iterator[None]:
        """Cut or stalled within the block."""
        (self.cut if how == "cut" else self.stall)()
        try:
            yield
        finally:
            self.heal()

    def close(self) -> None:
        self._flows.set()
        self._stop_listening()
        self._drop()

    def _accept_in_thread(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            self._flows.wait()
            server = self._connect()
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._flows.wait()
                target.sendall(data)
        self._flows.wait()
        for end in (source, target):
            _shut(end)

    def _stop_listening(self) -> None:
        _shut(self._listener)
        self._listener.close()

    def _drop(self) -> None:
        with self._lock:
            for end in self._open:
                _shut(end)


def _listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

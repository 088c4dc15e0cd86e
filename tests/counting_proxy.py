"""A TCP proxy on loopback that counts the bytes that a server sends, whatever client library reads them."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class CountingProxy:
    """Passes connections on to a port of this machine.

    Attributes:
        port: Where it listens.
        received: Bytes that the server has sent so far, headers included.
        connections: How many there were.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = 0
        self.connections = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Accept connections until the proxy is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self.connections += 1
                for source, sink, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=(source, sink, counts), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counts:
                    with self._lock:
                        self.received += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def counting_proxy(target: int) -> Iterator[CountingProxy]:
    """Run a proxy to that port."""
    proxy = CountingProxy(target)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()

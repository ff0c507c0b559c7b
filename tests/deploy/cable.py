"""A TCP connection that tests can cut and mend."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock, Thread


class Cable:
    """A TCP connection to the port `target` that can be cut and mended."""

    def __init__(self) -> None:
        self.target = 0
        self.whole = True
        self.open: list[socket.socket] = []
        self.lock = Lock()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.door.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.door.accept()
            except OSError:
                return
            try:
                if not self.whole:
                    raise OSError
                far = socket.create_connection(("127.0.0.1", self.target), 5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self.lock:
                if not self.whole:
                    near.close()
                    far.close()
                    continue
                self.open += [near, far]
            for one, other in ((near, far), (far, near)):
                Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self) -> None:
        with self.lock:
            self.whole = False
            for end in self.open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self.open.clear()

    def mend(self) -> None:
        self.whole = True

    def close(self) -> None:
        self.door.close()
        self.cut()

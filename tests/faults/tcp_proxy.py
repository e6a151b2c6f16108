"""A TCP proxy on the loopback whose traffic a test may hold, drop or delay."""
import contextlib
import select
import socket
import threading
import time


class TcpProxy:
    """`mode`: pass, hold (bytes wait, connections stay: a partition), delay (`delay_s`)."""

    def __init__(self, target_port):
        self.target_port, self.mode, self.delay_s = target_port, "pass", 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets, self.closed = [], False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                continue
            self.sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        with contextlib.suppress(OSError, ValueError):
            while not self.closed:
                readable, _, _ = select.select([source], [], [], 0.2)
                if self.mode == "hold":
                    time.sleep(0.05)
                    continue
                if not readable:
                    continue
                data = source.recv(65536)
                if not data:
                    break
                if self.mode == "delay":
                    time.sleep(self.delay_s)
                while self.mode == "hold" and not self.closed:
                    time.sleep(0.05)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def reset(self):
        """Breaks every open connection."""
        for open_socket in self.sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
                open_socket.close()
        self.sockets = []

    def close(self):
        self.closed = True
        self.listener.close()
        self.reset()

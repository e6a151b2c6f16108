"""A TCP proxy on the loopback whose traffic a test may hold, delay or break."""
import contextlib
import select
import socket
import threading
import time


class TcpProxy:
    """`mode`: pass; hold (bytes wait, connections stay: a partition), hold_up and hold_down
    (to and from the server only); delay (`delay_s` before every piece of at most
    `piece_bytes`)."""

    def __init__(self, target_port):
        self.target_port, self.mode, self.delay_s = target_port, "pass", 0.0
        self.piece_bytes = 65536
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets, self.forgotten, self.closed = [], set(), False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                continue
            self.sockets += [near, far]
            for source, sink, way in ((near, far, "hold_up"), (far, near, "hold_down")):
                threading.Thread(target=self._pump, args=(source, sink, way), daemon=True).start()

    def _pump(self, source, sink, way):
        def held():
            is_held = self.mode in ("hold", way) or source.fileno() in self.forgotten
            return is_held and not self.closed

        with contextlib.suppress(OSError, ValueError):
            while not self.closed:
                readable, _, _ = select.select([source], [], [], 0.2)
                if held():
                    time.sleep(0.05)
                    continue
                if not readable:
                    continue
                received = source.recv(self.piece_bytes)
                if not received:
                    break
                if self.mode == "delay":
                    time.sleep(self.delay_s)
                while held():
                    time.sleep(0.05)
                sink.sendall(received)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def forget(self):
        """Half-open: the connections of now carry nothing any more and neither end hears
        of it; new ones work."""
        self.forgotten |= {s.fileno() for s in self.sockets}

    def reset(self):
        """Breaks every open connection."""
        for open_socket in self.sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
                open_socket.close()
        self.sockets, self.forgotten = [], set()

    def close(self):
        self.closed = True
        self.listener.close()
        self.reset()

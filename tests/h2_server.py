"""An HTTP/2 server that does to each request what a test says, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions

OK = (("grpc-status", "0"),)


class Peer:
    """One accepted connection, with what an answer is made of."""

    def __init__(self, server: ScriptedServer, accepted: socket.socket, number: int) -> None:
        self.server, self.socket, self.number = server, accepted, number
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.bodies: dict[int, bytes] = {}

    def serve(self) -> None:
        self.h2.initiate_connection()
        # Valid from the client's acknowledgement on; what it sent before knows nothing of them.
        self.h2.update_settings(self.server.settings)
        self.flush()
        while data := self.socket.recv(65536):
            for event in self.h2.receive_data(data):
                self._on(event)
            self.flush()

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.server.headers.append({name.decode(): value.decode() for name, value in event.headers})
            self.bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            body = self.bodies.pop(event.stream_id)
            self.server.arrivals_s.append(time.monotonic())
            self.server.bodies.append(body)
            self.server.answer(self, event.stream_id, body)
        elif isinstance(event, h2.events.StreamReset):
            self.server.resets.append(int(event.error_code))

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    # --- what an answer may do ---------------------------------------------------------------------

    def reply(self, stream: int, message: bytes = b"", trailers: tuple[tuple[str, str], ...] = OK) -> None:
        """Headers, one message, trailers."""
        self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self.h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
        else:
            self.h2.end_stream(stream)

    def refuse(self, stream: int, code: int, text: str) -> None:
        """Trailers only."""
        headers = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(code))]
        self.h2.send_headers(stream, [*headers, ("grpc-message", text)], end_stream=True)

    def status(self, stream: int, status: int) -> None:
        """An HTTP status and nothing else."""
        self.h2.send_headers(stream, [(":status", str(status))], end_stream=True)

    def raw(self, data: bytes) -> None:
        """Bytes that no HTTP/2 library would send."""
        self.flush()
        self.socket.sendall(data)

    def hang_up(self) -> None:
        """Close the connection in the middle."""
        self.flush()
        self.socket.shutdown(socket.SHUT_RDWR)


Answer = Callable[[Peer, int, bytes], None]


class ScriptedServer:
    """Listens on a port of its own; every connection has its thread."""

    def __init__(self, answer: Answer, settings: dict[int, int]) -> None:
        self.answer, self.settings = answer, settings
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.arrivals_s: list[float] = []
        self.resets: list[int] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[tuple[Peer, threading.Thread]] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                peer = Peer(self, accepted, self.connections)
                thread = threading.Thread(target=self._run, args=(peer,))
                self._peers.append((peer, thread))
                thread.start()

    def _run(self, peer: Peer) -> None:
        with peer.socket, suppress(OSError, h2.exceptions.ProtocolError):
            peer.serve()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for peer, thread in self._peers:
            with suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def serving(answer: Answer, settings: dict[int, int] | None = None) -> Iterator[ScriptedServer]:
    """A scripted server for the length of a block."""
    server = ScriptedServer(answer, settings or {})
    try:
        yield server
    finally:
        server.close()

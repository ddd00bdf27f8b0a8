"""A publisher as ZeroMQ's PUB is one on the wire (ZMTP 3.0, no security), and the msgpack that vLLM sends with it."""

import socket
import struct
import threading


def msgpack(value):
    if value is None:
        return b"\xc0"
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, str):
        data = value.encode()
        return b"\xd9" + bytes([len(data)]) + data
    if isinstance(value, dict):
        return b"\xde" + struct.pack(">H", len(value)) + b"".join(msgpack(part) for pair in value.items() for part in pair)
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(msgpack, value))


def frame(data, more=False, command=False):
    flags = (1 if more else 0) | (4 if command else 0)
    if len(data) < 256:
        return bytes([flags, len(data)]) + data
    return bytes([flags | 2]) + struct.pack(">Q", len(data)) + data


class Publisher:
    """Listens at a path (ipc://) and sends KV events to all who are connected."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.subscribers, self.sequence, self.changed = [], 0, threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _read(self, connection, size):
        data = b""
        while len(data) < size:
            more = connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _serve(self, connection):
        try:
            connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
            self._read(connection, 64)
            connection.sendall(frame(b"\x05READY\x0bSocket-Type" + struct.pack(">I", 3) + b"PUB", command=True))
            while True:
                flags, = self._read(connection, 1)
                size = struct.unpack(">Q", self._read(connection, 8))[0] if flags & 2 else self._read(connection, 1)[0]
                body = self._read(connection, size)
                if flags & 4 and body.startswith(b"\x04PING"):
                    connection.sendall(frame(b"\x04PONG" + body[7:], command=True))
                elif body.startswith((b"\x01", b"\x09SUBSCRIBE")):
                    with self.changed:
                        self.subscribers.append(connection)
                        self.changed.notify_all()
        except (EOFError, OSError):
            with self.changed:
                if connection in self.subscribers:
                    self.subscribers.remove(connection)
            connection.close()

    def await_subscriber(self, seconds=20):
        with self.changed:
            assert self.changed.wait_for(lambda: self.subscribers, seconds), "nobody listens"

    def publish(self, *events):
        payload = msgpack([0.5, list(events)])
        message = frame(b"kv", more=True) + frame(struct.pack(">Q", self.sequence), more=True) + frame(payload)
        self.sequence += 1
        with self.changed:
            for each in self.subscribers:
                each.sendall(message)

    def stored(self, first, tokens, block):
        self.publish({"type": "BlockStored", "block_hashes": [first + i for i in range(len(tokens) // block)],
                      "parent_block_hash": None, "token_ids": tokens, "block_size": block})

    def close(self):
        self.listener.close()
        with self.changed:
            for each in self.subscribers:
                each.close()

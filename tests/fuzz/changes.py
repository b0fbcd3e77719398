"""New inputs of steps from old ones: a step, a frame or a message of gRPC is changed, and stays one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from random import Random

import frames
import hpack
from frames import Frame
from steps import Kind, Step, input_of, steps_of

Mutate = Callable[[bytes, int], bytes]
Headers = list[tuple[str, str]]

NUMBERS = (0, 1, 2, 5, 100, 4096, 16384, 16385, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
MAX_DATA = 65535


def number(random: Random) -> bytes:
    return random.choice(NUMBERS).to_bytes(4, "big")


def settings(random: Random) -> Frame:
    found = b"".join(random.randrange(9).to_bytes(2, "big") + number(random) for _ in range(random.randrange(4)))
    return Frame(frames.SETTINGS, 0 if found else frames.ACK, 0, found)


def cut(frame: Frame, random: Random) -> list[Frame]:
    """The same in two frames."""
    at = random.randrange(len(frame.payload) + 1)
    first, second = frame.payload[:at], frame.payload[at:]
    if frame.kind == frames.HEADERS:
        head = frame._replace(flags=frame.flags & ~frames.END_HEADERS, payload=first)
        return [head, Frame(frames.CONTINUATION, frame.flags & frames.END_HEADERS, frame.stream, second)]
    return [frame._replace(flags=frame.flags & ~frames.END_STREAM, payload=first), frame._replace(payload=second)]


class Changes:
    """Changes inputs of one target, after a head of some bytes. `headers` and `body` make those of a call of it."""

    def __init__(self, headers: Callable[[Random], Headers], body: Callable[[Random], bytes], *, head: int = 0) -> None:
        self.headers, self.body, self.head = headers, body, head

    def change(self, data: bytes, limit: int, seed: int, mutate: Mutate) -> bytes:
        """An input like this one."""
        random = Random(seed)
        if random.random() < 0.05:
            return mutate(data, limit)
        head, data = data[: self.head], data[self.head :]
        if random.random() < 0.02:
            head = random.randbytes(self.head)
        steps = list(steps_of(data)) or [Step(Kind.RECEIVE, frames.PREFACE)]
        for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
            self._change_steps(steps, random, mutate)
        while len(made := head + input_of(steps)) > limit and len(steps) > 1:
            del steps[random.randrange(len(steps))]
        return made[:limit]

    # --- steps ----------------------------------------------------------------------------------------

    def _change_steps(self, steps: list[Step], random: Random, mutate: Mutate) -> None:
        at = random.randrange(len(steps))
        step = steps[at]
        choice = random.random()
        if choice < 0.6 and any(one.kind <= Kind.RECEIVE_COPY for one in steps):
            at = random.choice([at for at, one in enumerate(steps) if one.kind <= Kind.RECEIVE_COPY])
            steps[at] = replace(steps[at], data=self._changed_bytes(steps[at].data, random, mutate))
        elif choice < 0.7:
            kind = Kind(random.randrange(len(Kind)))
            data = self._call(random) if kind <= Kind.RECEIVE_COPY else random.randbytes(random.choice((0, 1, 1, 2)))
            steps.insert(at, Step(kind, data, step.slot if random.random() < 0.8 else 1, random.random() < 0.3))
        elif choice < 0.76 and len(steps) > 1:
            del steps[at]
        elif choice < 0.82 and len(step.data) > 1:
            split = random.randrange(1, len(step.data))
            steps[at : at + 1] = [replace(step, data=step.data[:split]), replace(step, data=step.data[split:])]
        elif choice < 0.86 and at + 1 < len(steps):
            steps[at : at + 2] = [replace(step, data=(step.data + steps[at + 1].data)[:MAX_DATA])]
        elif choice < 0.9:
            steps[at] = replace(step, at_once=not step.at_once)
        elif choice < 0.93:
            steps[at] = replace(step, slot=1 - step.slot)
        elif choice < 0.96:
            steps.insert(random.randrange(len(steps)), step)
        else:
            steps[at] = replace(step, data=mutate(step.data, len(step.data) + 16)[:MAX_DATA])

    # --- frames ---------------------------------------------------------------------------------------

    def _changed_bytes(self, data: bytes, random: Random, mutate: Mutate) -> bytes:
        """What is sent, with another frame in it or with one changed."""
        preface = frames.PREFACE if data.startswith(frames.PREFACE) else b""
        found, rest = frames.split(data[len(preface) :])
        at = random.randrange(len(found) + 1)
        choice = random.random()
        if at == len(found) or choice < 0.3:
            found.insert(at, self._made(random))
        elif choice < 0.4:
            del found[at]
        elif choice < 0.47:
            found.insert(random.randrange(len(found) + 1), found[at])
        elif choice < 0.5:
            found[at : at + 1] = cut(found[at], random)
        else:
            found[at] = self._changed(found[at], random, mutate)
        return (preface + b"".join(frame.bytes() for frame in found) + rest)[:MAX_DATA]

    def _changed(self, frame: Frame, random: Random, mutate: Mutate) -> Frame:
        choice = random.random()
        if choice < 0.15:
            return frame._replace(flags=frame.flags ^ random.choice((1, 4, 8, 32)))
        if choice < 0.3:
            near = (0, 1, 2, 3, 5, 7, frame.stream + 2 & 0xFFFFFFFF, max(frame.stream - 2, 0))
            return frame._replace(stream=random.choice(near))
        if choice < 0.35:
            return frame._replace(kind=random.randrange(11))
        if choice < 0.45:
            pad = random.choice((0, 1, 7, 255))
            payload = bytes([pad]) + frame.payload + bytes(random.choice((pad, pad // 2)))
            return frame._replace(flags=frame.flags | frames.PADDED, payload=payload)
        if frame.kind == frames.HEADERS and choice < 0.7:
            return frame._replace(payload=self._block(random))
        if frame.kind == frames.DATA and choice < 0.7:
            return frame._replace(payload=self._messages(random))
        if frame.kind == frames.DATA and choice < 0.85 and len(frame.payload) > 5:
            body = mutate(frame.payload[5:], len(frame.payload) + 20)
            return frame._replace(payload=frame.payload[:1] + len(body).to_bytes(4, "big") + body)
        return frame._replace(payload=mutate(frame.payload, len(frame.payload) + 20))

    def _made(self, random: Random) -> Frame:
        """A frame of any kind."""
        stream = random.choice((1, 1, 3, 3, 5, 7, 9, 11, 0, 2))
        match random.randrange(11):
            case frames.DATA:
                return Frame(frames.DATA, random.randrange(2), stream, self._messages(random))
            case frames.HEADERS:
                return Frame(frames.HEADERS, random.choice((4, 4, 5)), stream, self._block(random))
            case frames.PRIORITY:
                parent = random.choice((0, 1, 3, 1 << 31)).to_bytes(4, "big")
                return Frame(frames.PRIORITY, 0, stream, parent + b"\x10")
            case frames.RST_STREAM:
                return Frame(frames.RST_STREAM, 0, stream, number(random))
            case frames.SETTINGS:
                return settings(random)
            case frames.PUSH_PROMISE:
                return Frame(frames.PUSH_PROMISE, frames.END_HEADERS, stream, b"\0\0\0\2" + self._block(random))
            case frames.PING:
                return Frame(frames.PING, random.randrange(2), 0, bytes(8))
            case frames.GOAWAY:
                return Frame(
                    frames.GOAWAY, 0, 0, random.choice((0, 1, (1 << 31) - 1)).to_bytes(4, "big") + number(random)
                )
            case frames.WINDOW_UPDATE:
                return Frame(frames.WINDOW_UPDATE, 0, random.choice((0, stream)), number(random))
            case frames.CONTINUATION:
                return Frame(frames.CONTINUATION, random.choice((0, 4)), stream, self._block(random))
            case _:
                return Frame(random.randrange(10, 256), random.randrange(256), stream, random.randbytes(8))

    # --- what is in them ------------------------------------------------------------------------------

    def _block(self, random: Random) -> bytes:
        """Headers, or nearly."""
        headers = self.headers(random)
        if random.random() < 0.05:
            del headers[random.randrange(len(headers))]
        if random.random() < 0.02:
            headers += [(f"k{count}", "") for count in range(20)]
        # Mostly such that the table of headers stays as it is: what follows refers to it.
        keep = random.random() < 0.8
        return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*one) if keep else one for one in headers])

    def _messages(self, random: Random) -> bytes:
        """Messages as they are on the wire, or nearly."""
        found = b""
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            body = self.body(random)
            packed = random.random()
            if packed < 0.2:
                body = gzip.compress(body, mtime=0) if packed < 0.12 else zlib.compress(body)
            size = len(body) if random.random() < 0.9 else random.choice(NUMBERS)
            found += bytes([packed < 0.2]) + size.to_bytes(4, "big") + body
        return found if random.random() < 0.9 else found[: random.randrange(len(found) + 1)]

    def _call(self, random: Random) -> bytes:
        """A whole call, or its answer."""
        stream = 1 + 2 * random.randrange(10)
        head = Frame(frames.HEADERS, frames.END_HEADERS, stream, self._block(random))
        return head.bytes() + Frame(frames.DATA, frames.END_STREAM, stream, self._messages(random)).bytes()

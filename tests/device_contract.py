"""What every device must do, as tests: a subclass says which device, and how the host looks at its memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from inferd import synthetic
from inferd._native.batch import Batch, alone
from inferd._native.reply import answer
from inferd._native.signature import Signature
from inferd.batchable import signature_of
from inferd.device import ALIGNMENT_BYTES, Buffer, CpuDevice, Device, Lane
from inferd.proto import inference_pb2 as pb
from inferd.session import NUMPY_TYPES, Session, SessionOptions, Slot

MAX_ROWS = 12
WAIT_S = 60


def fill(buffer: Buffer, data: bytes) -> None:
    ctypes.memmove(buffer.host_address, data, len(data))


def read(buffer: Buffer, nbytes: int) -> bytes:
    return ctypes.string_at(buffer.host_address, nbytes)


def answers(session: Session, slot: Slot, signature: Signature, rows: int, seed: int) -> list[np.ndarray]:
    """What a batch of generated rows is answered with."""
    batch: Batch = alone(signature, synthetic.request(signature, session.inputs, rows, 4, seed))
    answer(batch, slot.run(batch))
    found = pb.ModelInferResponse.FromString(batch.members[0].answer)
    return [
        np.frombuffer(raw, NUMPY_TYPES.get(info.element_type, "u1"))
        for info, raw in zip(session.outputs, found.raw_output_contents, strict=True)
    ]


class DeviceContract:
    """Subclasses have fixtures `device` and `look`, which is called before the host reads memory."""

    @pytest.fixture
    def look(self) -> Callable[[Buffer], None]:
        return lambda buffer: None

    def lane(self, device: Device) -> Lane:
        return device.workspace().lane()

    def test_memory_is_aligned_zeroed_and_its_own(self, device: Device, look: Callable[[Buffer], None]) -> None:
        with closing(self.lane(device)) as lane, lane.turn():
            first, second = lane.allocate(1000), lane.allocate(64)
            lane.download(first, 1000)
            lane.wait()
            look(first)
            assert read(first, 1000) == bytes(1000)
            for address in (first.host_address, first.bound_address, second.host_address, second.bound_address):
                assert address % ALIGNMENT_BYTES == 0
            assert abs(first.host_address - second.host_address) >= 64
            assert abs(first.bound_address - second.bound_address) >= 64

    def test_bytes_come_back_as_they_went(self, device: Device, look: Callable[[Buffer], None]) -> None:
        with closing(self.lane(device)) as lane, lane.turn():
            buffer = lane.allocate(4096)
            for turn in range(3):
                data = np.random.default_rng(turn).bytes(4096)
                fill(buffer, data)
                lane.upload(buffer, 4096)
                lane.wait()
                if buffer.host_address != buffer.bound_address:
                    fill(buffer, bytes(4096))
                with lane.computing():
                    pass
                lane.download(buffer, 4096)
                lane.wait()
                look(buffer)
                assert read(buffer, 4096) == data

    def test_memory_that_is_freed_may_be_had_again(self, device: Device) -> None:
        with closing(self.lane(device)) as lane, lane.turn():
            for nbytes in (64, 1 << 20, 128, 1 << 21):
                buffer = lane.allocate(nbytes)
                fill(buffer, b"x" * 64)
                lane.upload(buffer, 64)
                lane.free(buffer)

    def test_a_lane_settles_in_the_middle_of_a_turn_that_failed(self, device: Device) -> None:
        with closing(self.lane(device)) as lane:
            with lane.turn():
                buffer = lane.allocate(64)
                fill(buffer, b"a" * 64)
                lane.upload(buffer, 64)
            lane.settle()
            with lane.turn():
                fill(buffer, b"b" * 64)
                lane.upload(buffer, 64)
                lane.wait()

    def test_closing_twice_is_closing_once(self, device: Device) -> None:
        workspace = device.workspace()
        lane = workspace.lane()
        with lane.turn():
            lane.allocate(64)
        for _ in range(2):
            lane.close()
        for _ in range(2):
            workspace.close()

    @pytest.mark.parametrize("model", ["mlp", "two_heads", "means", "scale"])
    def test_answers_are_those_of_the_cpu(self, device: Device, tmp_path: Path, model: str) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(getattr(onnx_models, model)(), path)
        with (
            closing(Session(path, SessionOptions(), CpuDevice())) as plain,
            closing(Session(path, SessionOptions(), device)) as session,
        ):
            signature = signature_of(session, "m", "1", batched=True, max_rows=MAX_ROWS)
            slot, reference = Slot(session), Slot(plain)
            for rows in (1, 2, 3, 5, 8, 9, MAX_ROWS, 7, 1):
                found = answers(session, slot, signature, rows, rows)
                expected = answers(plain, reference, signature, rows, rows)
                assert [len(one) for one in found] == [len(one) for one in expected]
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-4)

    def test_half_precision_stays_so_from_the_request_to_the_answer(self, device: Device, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(onnx_models.halves(), path)
        with closing(Session(path, SessionOptions(), device)) as session:
            signature = signature_of(session, "m", "1", batched=True, max_rows=MAX_ROWS)
            slot = Slot(session)
            for rows in (1, 3, 7, MAX_ROWS, 5):
                sent = (np.arange(3 * rows) / 7 + rows).astype("<f2")
                request = synthetic.bound(signature, [("x", "FP16", (rows, 3), sent.tobytes())])
                batch = alone(signature, request)
                answer(batch, slot.run(batch))
                found = pb.ModelInferResponse.FromString(batch.members[0].answer)
                assert (found.outputs[0].datatype, list(found.outputs[0].shape)) == ("FP16", [rows, 3])
                assert found.raw_output_contents[0] == (sent * np.float16(3)).tobytes()
                # Two bytes an element all the way: what is copied, and what the run is bound to.
                run_rows = slot._run_rows(batch)
                plan = slot._plans[run_rows]
                assert plan.inputs == ((0, 6 * run_rows),)
                assert [nbytes for _, nbytes in (*plan.bound.reads, *plan.bound.writes)] == [6 * run_rows] * 2
            buffer = slot._buffers.inputs[0]
            if device.pads:  # five rows run as eight, and the three are zeros
                assert read(buffer, 48)[30:] == bytes(18)

    def test_two_slots_of_a_session_do_not_mix(self, device: Device, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(onnx_models.scale(), path)
        wrong: list[str] = []

        def work(slot: Slot, first_seed: int) -> None:
            try:
                for seed in range(first_seed, first_seed + 40):
                    rows = 1 + seed % MAX_ROWS
                    request = synthetic.request(signature, session.inputs, rows, 4, seed)
                    batch = alone(signature, request)
                    answer(batch, slot.run(batch))
                    raw = pb.ModelInferResponse.FromString(batch.members[0].answer).raw_output_contents[0]
                    sent = answers(plain, references[first_seed], signature, rows, seed)[0]
                    if not np.allclose(np.frombuffer(raw, "<f4"), sent, rtol=1e-3):
                        wrong.append(f"seed {seed}")
            except Exception as failure:
                wrong.append(repr(failure))

        with (
            closing(Session(path, SessionOptions(), CpuDevice())) as plain,
            closing(Session(path, SessionOptions(), device)) as session,
        ):
            signature = signature_of(session, "m", "1", batched=True, max_rows=MAX_ROWS)
            references = {seed: Slot(plain) for seed in (0, 1000)}
            threads = [threading.Thread(target=work, args=(Slot(session), seed)) for seed in references]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_S)
        assert not wrong

    def test_a_slot_says_how_many_rows_nobody_asked_for(self, device: Device, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(onnx_models.mlp(), path)
        with closing(Session(path, SessionOptions(), device)) as session:
            signature = signature_of(session, "m", "1", batched=True, max_rows=MAX_ROWS)
            slot = Slot(session)
            for rows, run_rows in ((1, 1), (3, 4), (5, 8), (9, 12), (12, 12), (2, 2)):
                answers(session, slot, signature, rows, 0)
                assert slot.padded_rows == (run_rows - rows if device.pads else 0)

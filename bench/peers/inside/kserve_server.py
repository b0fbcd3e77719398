"""Runs inside KServe's environment: a KServe model over an ONNX Runtime session."""

import argparse
import asyncio
import logging

import kserve
import onnxruntime
from kserve import InferOutput, InferResponse
from kserve.utils.numpy_codec import from_np_dtype


class OnnxModel(kserve.Model):
    """Answers with every output of the model, as binary data."""

    def __init__(self, name, path, threads):
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.heavy = threads > 1
        self.names = [output.name for output in self.session.get_outputs()]
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        """Run the session once for this request."""
        feed = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        if self.heavy:
            arrays = await asyncio.to_thread(self.session.run, self.names, feed)
        else:
            arrays = self.session.run(self.names, feed)
        outputs = []
        for name, values in zip(self.names, arrays, strict=True):
            outputs.append(InferOutput(name, list(values.shape), from_np_dtype(values.dtype)))
            outputs[-1].set_data_from_numpy(values, binary_data=True)
        return InferResponse(payload.id, self.name, outputs)


parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
parser.add_argument("--model", required=True)
parser.add_argument("--served", required=True)
parser.add_argument("--threads", type=int, required=True)
args, _ = parser.parse_known_args()

kserve.logging.configure_logging()
for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
    logging.getLogger(name).setLevel(logging.WARNING)
kserve.ModelServer(
    http_port=args.http_port,
    grpc_port=args.grpc_port,
    workers=args.workers,
    enable_latency_logging=False,
).start([OnnxModel(args.served, args.model, args.threads)])

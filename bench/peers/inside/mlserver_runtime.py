"""Runs inside MLServer's environment: an MLServer model over an ONNX Runtime session."""

import asyncio

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    """Answers with every output of the model."""

    async def load(self):
        """Open the model file."""
        parameters = self.settings.parameters
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = parameters.extra["threads"], 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(parameters.uri, options, providers=["CPUExecutionProvider"])
        self.heavy = parameters.extra["threads"] > 1
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload):
        """Run the session once for this request, which may be a batch of them."""
        feed = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        if self.heavy:
            arrays = await asyncio.to_thread(self.session.run, self.names, feed)
        else:
            arrays = self.session.run(self.names, feed)
        outputs = [NumpyCodec.encode_output(name, values) for name, values in zip(self.names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)

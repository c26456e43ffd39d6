"""Set up MLServer with a custom runtime and adaptive batching."""

import json
from typing import Any

from benchmarks.peers import (
    ONE_THREAD,
    TORCH,
    Launch,
    NamedRows,
    Peer,
    Setup,
    open_inference_body,
    open_inference_columns,
)

_RUNTIME = """
import json, os
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse

class Runtime(MLModel):
    async def load(self):
        torch.set_num_threads(1)
        self.model = torch.export.load(self.settings.parameters.uri).module()
        self.columns = json.loads(os.environ["COLUMNS"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if payload.parameters and payload.parameters.content_type == "pd":
            frame = PandasCodec.decode_request(payload)
            rows = frame[self.columns].to_numpy("float32")
        else:
            rows = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            output = self.model(torch.from_numpy(rows)).numpy()
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("output", output)],
        )
"""


def _named_body(rows: NamedRows) -> dict[str, Any]:
    """Write a pandas DataFrame as in MLServer's documentation: a tensor per column."""
    return {"parameters": {"content_type": "pd"}, **open_inference_columns(rows)}


def prepare(setup: Setup, *, batching: bool) -> Launch:
    (setup.folder / "runtime.py").write_text(_RUNTIME)
    model = {
        "name": "model",
        "implementation": "runtime.Runtime",
        "parameters": {"uri": str(setup.exported)},
    }
    if batching:
        model |= {"max_batch_size": 64, "max_batch_time": 0.001}
    server = {
        "http_port": setup.port,
        "grpc_port": setup.port + 1,
        "metrics_port": setup.port + 2,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "debug": False,
    }
    (setup.folder / "model-settings.json").write_text(json.dumps(model))
    (setup.folder / "settings.json").write_text(json.dumps(server))
    return Launch(
        command=(str(setup.environment / "bin" / "mlserver"), "start", "."),
        ready_url=f"{setup.url}/v2/models/model/ready",
        predict_url=f"{setup.url}/v2/models/model/infer",
        body=open_inference_body,
        named_body=_named_body,
        environment={**ONE_THREAD, "COLUMNS": json.dumps(setup.columns)},
    )


REQUIREMENTS = ("mlserver==1.7.1", "uvloop<0.22", TORCH)
PEERS = tuple(
    Peer(name, "MLServer", REQUIREMENTS, prepared)
    for name, prepared in (
        ("MLServer", lambda setup: prepare(setup, batching=False)),
        ("MLServer, batching", lambda setup: prepare(setup, batching=True)),
    )
)

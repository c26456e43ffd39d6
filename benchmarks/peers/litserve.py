"""Set up LitServe, without batching and with its batching of up to 64 requests."""

import json
from typing import Any

from benchmarks.peers import ONE_THREAD, TORCH, Launch, NamedRows, Peer, Rows, Setup

_SERVER = """
import json, os, sys, torch, litserve
torch.set_num_threads(1)
columns = json.loads(os.environ["COLUMNS"])
exported, port, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = torch.export.load(exported).module()

    def decode_request(self, request):
        rows = request["instances"]
        if isinstance(rows[0], dict):
            rows = [[row[name] for name in columns] for row in rows]
        return torch.tensor(rows)

    def batch(self, inputs):
        self.sizes = [len(rows) for rows in inputs]
        return torch.cat(inputs)

    def predict(self, rows):
        with torch.inference_mode():
            return self.model(rows)

    def unbatch(self, output):
        return list(output.split(self.sizes))

    def encode_response(self, output):
        return {"predictions": output.tolist()}

if __name__ == "__main__":
    api = Api(max_batch_size=batch, batch_timeout=0.001 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        port=port, host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
"""


def _body(rows: Rows | NamedRows) -> dict[str, Any]:
    return {"instances": rows}


def _prepare(setup: Setup, batch: int) -> Launch:
    (setup.folder / "server.py").write_text(_SERVER)
    return Launch(
        command=(
            *(setup.python, "server.py"),
            *(str(setup.exported), str(setup.port), str(batch)),
        ),
        ready_url=f"{setup.url}/health",
        predict_url=f"{setup.url}/predict",
        body=_body,
        named_body=_body,
        environment={**ONE_THREAD, "COLUMNS": json.dumps(setup.columns)},
    )


PEERS = tuple(
    Peer(name, "LitServe", ("litserve==0.2.19", TORCH), prepare)
    for name, prepare in (
        ("LitServe", lambda setup: _prepare(setup, 1)),
        ("LitServe, batching", lambda setup: _prepare(setup, 64)),
    )
)

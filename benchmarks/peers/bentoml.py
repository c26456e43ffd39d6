"""Set up BentoML, one worker, without batching and with its adaptive batching."""

import json
from typing import Any

from benchmarks.peers import ONE_THREAD, TORCH, Launch, NamedRows, Peer, Rows, Setup

_SERVICE = """
import json, os
import bentoml, numpy, pandas, torch

@bentoml.service(workers=1, traffic={{"timeout": 30, "max_concurrency": 1024}})
class Model:
    def __init__(self):
        torch.set_num_threads(1)
        self.model = torch.export.load(os.environ["EXPORTED"]).module()
        self.columns = json.loads(os.environ["COLUMNS"])

    @bentoml.api({options})
    def predict(self, instances: numpy.ndarray) -> numpy.ndarray:
        return self.run(instances.astype("float32"))

    @bentoml.api({options})
    def predict_named(self, instances: pandas.DataFrame) -> numpy.ndarray:
        return self.run(instances[self.columns].to_numpy("float32"))

    def run(self, rows):
        with torch.inference_mode():
            return self.model(torch.from_numpy(rows)).numpy()
"""


def _body(rows: Rows | NamedRows) -> dict[str, Any]:
    return {"instances": rows}


def _prepare(setup: Setup, options: str) -> Launch:
    (setup.folder / "service.py").write_text(_SERVICE.format(options=options))
    return Launch(
        command=(
            *(str(setup.environment / "bin" / "bentoml"), "serve", "service:Model"),
            *("--host", "127.0.0.1", "--port", str(setup.port)),
        ),
        ready_url=f"{setup.url}/readyz",
        predict_url=f"{setup.url}/predict",
        body=_body,
        named_body=_body,
        named_url=f"{setup.url}/predict_named",
        environment={
            **ONE_THREAD,
            "COLUMNS": json.dumps(setup.columns),
            "EXPORTED": str(setup.exported),
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(setup.folder / "home"),
        },
    )


PEERS = tuple(
    Peer(name, "BentoML", ("bentoml==1.4.39", "pandas<3", TORCH), prepare)
    for name, prepare in (
        ("BentoML", lambda setup: _prepare(setup, "")),
        (
            "BentoML, batching",
            lambda setup: _prepare(
                setup, "batchable=True, max_batch_size=64, max_latency_ms=1000"
            ),
        ),
    )
)

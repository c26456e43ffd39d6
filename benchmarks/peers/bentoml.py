"""BentoML, one worker, without batching and with its adaptive batching."""

from benchmarks.peers import ONE_THREAD, TORCH, Launch, Peer, Rows, Setup

_SERVICE = """
import os
import bentoml, numpy, torch

@bentoml.service(workers=1, traffic={{"timeout": 30, "max_concurrency": 1024}})
class Model:
    def __init__(self):
        torch.set_num_threads(1)
        self.model = torch.export.load(os.environ["EXPORTED"]).module()

    @bentoml.api({options})
    def predict(self, instances: numpy.ndarray) -> numpy.ndarray:
        with torch.inference_mode():
            return self.model(torch.from_numpy(instances.astype("float32"))).numpy()
"""


def _body(rows: Rows) -> dict[str, Rows]:
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
        environment={
            **ONE_THREAD,
            "EXPORTED": str(setup.exported),
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(setup.folder / "home"),
        },
    )


PEERS = tuple(
    Peer(name, "BentoML", ("bentoml==1.4.40", TORCH), prepare)
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

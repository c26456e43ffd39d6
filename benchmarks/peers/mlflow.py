"""Set up `mlflow models serve` on the registered artifact itself."""

import os

from benchmarks.peers import ONE_THREAD, TORCH, Launch, NamedRows, Peer, Rows, Setup


def _body(rows: Rows) -> dict[str, Rows]:
    return {"inputs": rows}


def _named_body(rows: NamedRows) -> dict[str, NamedRows]:
    return {"dataframe_records": rows}


def _prepare(setup: Setup) -> Launch:
    binaries = setup.environment / "bin"
    return Launch(
        command=(
            *(str(binaries / "mlflow"), "models", "serve"),
            *("--model-uri", str(setup.artifact), "--env-manager", "local"),
            *("--host", "127.0.0.1", "--port", str(setup.port)),
        ),
        ready_url=f"{setup.url}/ping",
        predict_url=f"{setup.url}/invocations",
        body=_body,
        named_body=_named_body,
        # It finds its server by name in PATH.
        environment={
            **ONE_THREAD,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )


PEERS = (Peer("mlflow models serve", "MLflow", ("mlflow==3.17.2", TORCH), _prepare),)

"""Set up Triton's C++ server with its Python backend and dynamic batching."""

import shutil
import subprocess
from pathlib import Path

from benchmarks.peers import (
    ONE_THREAD,
    TORCH,
    Launch,
    Peer,
    Setup,
    open_inference_body,
    open_inference_columns,
)

_MODEL = """
import json, os, sys
# The backend's embedded interpreter does not read PYTHONPATH.
sys.path.insert(0, os.environ["SITE_PACKAGES"])
import numpy, torch, triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        torch.set_num_threads(1)
        self.model = torch.export.load(os.environ["EXPORTED"]).module()
        config = json.loads(args["model_config"])
        self.names = [one["name"] for one in config["input"]]

    def _rows(self, request):
        arrays = [
            triton.get_input_tensor_by_name(request, name).as_numpy()
            for name in self.names
        ]
        only = arrays[0] if len(arrays) == 1 else numpy.concatenate(arrays, axis=1)
        return torch.from_numpy(only)

    def execute(self, requests):
        inputs = [self._rows(request) for request in requests]
        with torch.inference_mode():
            outputs = self.model(torch.cat(inputs)).split([len(i) for i in inputs])
        return [
            triton.InferenceResponse([triton.Tensor("output", o.numpy())])
            for o in outputs
        ]
"""

_CONFIG = """
backend: "python"
max_batch_size: 4096
input [INPUTS]
output [{ name: "output" data_type: TYPE_FP32 dims: [OUTPUTS] }]
dynamic_batching { }
instance_group [{ kind: KIND_CPU count: 1 }]
"""
_INPUT = '{{ name: "{}" data_type: TYPE_FP32 dims: [{}] }}'


def prepare(setup: Setup, *, columns: int = 30, outputs: int = 2) -> Launch:
    package = next(setup.environment.glob("lib/python3*/site-packages/pytriton"))
    server = package / "tritonserver"
    backend = next(server.rglob("libtriton_python.so")).parent
    stub = next(package.rglob("python_backend_stubs/3.11"))
    for file in stub.iterdir():
        shutil.copy(file, backend / file.name)
    repository = setup.folder / "repository"
    _write_model(repository / "model", [_INPUT.format("input", columns)], outputs)
    if setup.columns:
        # A name is that of an input, so a named column is an input of its own.
        inputs = [_INPUT.format(name, 1) for name in setup.columns]
        _write_model(repository / "named", inputs, outputs)
    binary = server / "bin" / "tritonserver"
    binary.chmod(0o755)
    (backend / "triton_python_backend_stub").chmod(0o755)
    libraries = ":".join(
        map(str, (server / "external_libs", server / "lib", _libpython(setup)))
    )
    site_packages = package.parent
    return Launch(
        command=(
            str(binary),
            f"--model-repository={repository}",
            f"--backend-directory={backend.parent}",
            "--http-address=127.0.0.1",
            f"--http-port={setup.port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--log-info=false",
        ),
        ready_url=f"{setup.url}/v2/models/model/ready",
        predict_url=f"{setup.url}/v2/models/model/infer",
        body=open_inference_body,
        named_url=f"{setup.url}/v2/models/named/infer",
        named_body=open_inference_columns,
        environment={
            **ONE_THREAD,
            "EXPORTED": str(setup.exported),
            "LD_LIBRARY_PATH": libraries,
            "SITE_PACKAGES": str(site_packages),
        },
    )


def _write_model(folder: Path, inputs: list[str], outputs: int) -> None:
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / "model.py").write_text(_MODEL)
    (folder / "config.pbtxt").write_text(
        _CONFIG.replace("INPUTS", ", ".join(inputs)).replace("OUTPUTS", str(outputs))
    )


def _libpython(setup: Setup) -> Path:
    return Path(
        subprocess.run(
            [
                *(setup.python, "-c"),
                "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )


REQUIREMENTS = ("nvidia-pytriton==0.7.0", TORCH)
PEERS = (Peer("Triton", "Triton", REQUIREMENTS, prepare),)

"""Calls by NVIDIA's own clients, in a process of their own.

Their messages share a protobuf package with ours, and one of them imports gevent.
Prints the results of all calls as one JSON object.
"""

import json
import sys
import warnings

import numpy as np

# It was generated with an older protobuf than the installed one; it works.
warnings.filterwarnings("ignore", message="Protobuf gencode")


def by_http(address, token):
    import tritonclient.http as triton

    headers = {"Authorization": f"Bearer {token}"}
    client = triton.InferenceServerClient(address)
    values = np.array([[1.5], [2.5]], "float32")
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "name": client.get_server_metadata()["name"],
        "model_ready": client.is_model_ready("m", headers=headers),
        "inputs": client.get_model_metadata("m", headers=headers)["inputs"],
        "outputs": client.get_model_metadata("m", headers=headers)["outputs"],
        "index": client.get_model_repository_index(headers=headers),
    }
    for binary in (False, True):
        tensor = triton.InferInput("input", [2, 1], "FP32")
        tensor.set_data_from_numpy(values, binary_data=binary)
        for name, outputs in (
            ("all", None),
            ("json", [triton.InferRequestedOutput("output", binary_data=False)]),
            ("raw", [triton.InferRequestedOutput("output", binary_data=True)]),
        ):
            result = client.infer(
                "m", [tensor], outputs=outputs, headers=headers, request_id="r1"
            )
            assert result.get_response()["id"] == "r1"
            data = result.as_numpy("output")
            found[f"{'raw' if binary else 'json'} in, {name} out"] = data.tolist()
    best = [triton.InferRequestedOutput("output", class_count=1)]
    result = client.infer("m", [tensor], outputs=best, headers=headers)
    found["best"] = [text.decode() for text in result.as_numpy("output").ravel()]
    calls = [client.async_infer("m", [tensor], headers=headers) for _ in range(5)]
    found["async"] = [call.get_result().as_numpy("output").tolist() for call in calls]
    found["no key"] = refusal(triton, lambda: client.infer("m", [tensor]))
    found["no model"] = refusal(
        triton, lambda: client.infer("other", [tensor], headers=headers)
    )
    tensor.set_data_from_numpy(np.array([[np.nan], [1]], "float32"))
    found["nan"] = refusal(triton, lambda: client.infer("m", [tensor], headers=headers))
    tensor.set_data_from_numpy(values)
    found["gzip"] = refusal(
        triton,
        lambda: client.infer(
            "m", [tensor], headers=headers, request_compression_algorithm="gzip"
        ),
    )
    client.close()
    return found


def by_grpc(address, token):
    import queue

    import tritonclient.grpc as triton

    headers = {"authorization": f"Bearer {token}"}
    client = triton.InferenceServerClient(address)
    values = np.array([[1.5], [2.5]], "float32")
    tensor = triton.InferInput("input", [2, 1], "FP32")
    tensor.set_data_from_numpy(values)
    metadata = client.get_model_metadata("m", headers=headers)
    result = client.infer("m", [tensor], headers=headers, request_id="r1")
    assert result.get_response().id == "r1"
    best = [triton.InferRequestedOutput("output", class_count=1)]
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "name": client.get_server_metadata().name,
        "model_ready": client.is_model_ready("m", headers=headers),
        "inputs": list(map(described, metadata.inputs)),
        "outputs": list(map(described, metadata.outputs)),
        "infer": result.as_numpy("output").tolist(),
        "best": [
            text.decode()
            for text in client.infer("m", [tensor], outputs=best, headers=headers)
            .as_numpy("output")
            .ravel()
        ],
    }
    answers = queue.Queue()
    client.start_stream(
        lambda result, error: answers.put((result, error)), headers=headers
    )
    for name in ("m", "other", "m"):
        client.async_stream_infer(name, [tensor])
    taken = [answers.get(timeout=20) for _ in range(3)]
    client.stop_stream()
    found["stream"] = [
        error.message() if error else result.as_numpy("output").tolist()
        for result, error in taken
    ]
    found["no key"] = refusal(triton, lambda: client.infer("m", [tensor]))
    found["no model"] = refusal(
        triton, lambda: client.infer("other", [tensor], headers=headers)
    )
    found["gzip"] = (
        client.infer("m", [tensor], headers=headers, compression_algorithm="gzip")
        .as_numpy("output")
        .tolist()
    )
    found["gzip without a key"] = compressed_health(address)
    client.close()
    return found


def compressed_health(address):
    """Ask over a channel that compresses all messages."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    gzip = grpc.Compression.Gzip
    with grpc.insecure_channel(address, compression=gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20).live


def described(tensor):
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
    }


def refusal(triton, call):
    try:
        call()
    except triton.InferenceServerException as error:
        return [str(error.status()), error.message()]
    return None


if __name__ == "__main__":
    kind, address, token = sys.argv[1:]
    print(json.dumps({"http": by_http, "grpc": by_grpc}[kind](address, token)))

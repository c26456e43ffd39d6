"""Call Modelyard with KServe's own clients: Open Inference Protocol, and JSON.

They do not list models, read metadata, upload files or wait for jobs.
"""

import asyncio
import json
import os
import warnings

import grpc
import httpx
import numpy as np

# Generated with an older protobuf than the installed one; it works.
warnings.filterwarnings("ignore", message="Protobuf gencode")

import kserve  # noqa: E402

url = os.environ["MODELYARD_URL"]
rows = json.loads(os.environ["MODELYARD_ROWS"])
headers = {"authorization": f"Bearer {os.environ['MODELYARD_KEY']}"}
metadata = tuple(headers.items())


def request(model, *, binary=False):
    tensor = kserve.InferInput("input", [len(rows), len(rows[0])], "FP32")
    tensor.set_data_from_numpy(np.array(rows, "float32"), binary_data=binary)
    return kserve.InferRequest(model, [tensor], request_id="r1")


def outputs(answer):
    assert answer.id == "r1"
    return answer.outputs[0].as_numpy().tolist()


async def by_rest(client):
    async def infer(*, binary):
        made = request("diabetes", binary=binary)
        return outputs(await client.infer(url, made, "diabetes", dict(headers)))

    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "modelReady": await client.is_model_ready(url, "diabetes", headers),
        "otherReady": await client.is_model_ready(url, "none", headers),
        "asJson": await infer(binary=False),
        "asBytes": await infer(binary=True),
    }


async def by_grpc(client):
    async def infer(*, binary):
        made = request("diabetes", binary=binary)
        return outputs(await client.infer(made, headers=metadata))

    return {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "modelReady": await client.is_model_ready("diabetes", headers=metadata),
        "asJson": await infer(binary=False),
        "asBytes": await infer(binary=True),
    }


async def own_json(client):
    async def post(operation, **body):
        address = f"{url}/api/v1/models/diabetes/{operation}"
        return await client.infer(
            address, body, headers=headers, is_graph_endpoint=True
        )

    predicted = await post("predict", instances=rows)
    batch = await post(
        "predict/batch",
        instances=[rows[0], ["old"]],
        options={"return_errors": "individual"},
    )
    explained = await post("explain", instances=rows)
    return {
        "predictions": predicted["predictions"],
        "badRow": batch["errors"][0]["index"],
        "method": explained["explanations"][0]["method"],
    }


async def refusals(rest, remote):
    try:
        await rest.infer(url, request("none"), "none", dict(headers))
    except httpx.HTTPStatusError as error:
        by_rest = str(error).partition(":")[0]
    try:
        await remote.infer(request("none"), headers=metadata)
    except grpc.RpcError as error:
        by_grpc = error.code().name
    return [by_rest, by_grpc]


async def main():
    config = kserve.RESTConfig(protocol="v2")
    async with (
        kserve.InferenceRESTClient(config) as rest,
        kserve.InferenceGRPCClient(os.environ["MODELYARD_GRPC"]) as remote,
    ):
        report = {
            "rest": await by_rest(rest),
            "grpc": await by_grpc(remote),
            "own": await own_json(rest),
            "refused": await refusals(rest, remote),
        }
    print(json.dumps(report))


asyncio.run(main())

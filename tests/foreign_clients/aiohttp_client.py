"""Do the same as `python_client.py` with aiohttp, without generated code."""

import asyncio
import json
import os
import time

import aiohttp

rows = json.loads(os.environ["MODELYARD_ROWS"])
headers = {"Authorization": f"Bearer {os.environ['MODELYARD_KEY']}"}


async def main():
    base = os.environ["MODELYARD_URL"]
    async with (
        aiohttp.ClientSession(base, headers=headers) as session,
        aiohttp.ClientSession() as keyless,
    ):

        async def get(path):
            async with session.get(path) as answer:
                return await answer.json()

        async def post(path, **body):
            async with session.post(path, json=body) as answer:
                return await answer.json()

        models = await get("/api/v1/models")
        model = await get("/api/v1/models/diabetes")
        columns = [column["name"] for column in model["signature"]["columns"]]
        base = "/api/v1/models/diabetes"
        predicted = await post(f"{base}/predict", instances=rows)
        batch = await post(
            f"{base}/predict/batch",
            instances=[dict(zip(columns, rows[0], strict=True)), {"age": "old"}],
            options={"return_errors": "individual"},
        )
        explained = await post(f"{base}/explain", instances=rows)
        upload = await post("/api/v1/uploads", content_type="text/csv")
        text = "\n".join(",".join(map(str, line)) for line in [columns, *rows])
        async with keyless.put(
            upload["upload_url"],
            data=text,
            headers={"Content-Type": upload["content_type"]},
        ) as answer:
            stored = await answer.json()
        job = await post(
            "/api/v1/jobs", model="diabetes", input_uri=upload["input_uri"]
        )
        deadline = time.monotonic() + 60
        while job["completed_at"] is None:
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.1)
            job = await get(f"/api/v1/jobs/{job['id']}")
        result = await get(job["result_url"])
        refused = await post("/api/v1/models/none/predict", instances=[1])
        explanation = explained["explanations"][0]
        report = {
            "models": [it["name"] for it in models["data"]],
            "prediction": predicted["predictions"][0],
            "badRow": batch["errors"][0]["index"],
            "badField": batch["errors"][0]["field"],
            "features": [it["feature"] for it in explanation["features"]],
            "method": explanation["method"],
            "stored": stored["bytes"] == len(text),
            "status": job["status"],
            "results": len(result["predictions"]),
            "refused": refused["error"]["code"],
        }
        print(json.dumps(report))


asyncio.run(main())

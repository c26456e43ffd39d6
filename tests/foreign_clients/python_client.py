"""Call Modelyard with `python`, a package that openapi-python-client generated."""

import json
import os
import time

import httpx
from python import AuthenticatedClient
from python.api.diabetes import diabetes_explain, diabetes_predict
from python.api.jobs import get_job, get_job_result, submit_job
from python.api.models import get_model, list_models, predict, predict_batch
from python.api.uploads import create_upload
from python.models import (
    CreateUploadRequest,
    CreateUploadRequestContentType,
    DiabetesExplainRequest,
    DiabetesInstance,
    DiabetesPredictRequest,
    PredictBatchOptions,
    PredictBatchOptionsReturnErrors,
    PredictBatchRequest,
    PredictRequest,
    SubmitUploadedJobRequest,
)

rows = json.loads(os.environ["MODELYARD_ROWS"])
client = AuthenticatedClient(
    base_url=os.environ["MODELYARD_URL"], token=os.environ["MODELYARD_KEY"]
)

models = list_models.sync(client=client)
model = get_model.sync("diabetes", client=client)
columns = [column["name"] for column in model.signature["columns"]]
dicts = [dict(zip(columns, row, strict=True)) for row in rows]
instances = [DiabetesInstance.from_dict(row) for row in dicts]
predicted = diabetes_predict.sync(
    client=client, body=DiabetesPredictRequest(instances=instances)
)
batch = predict_batch.sync(
    "diabetes",
    client=client,
    body=PredictBatchRequest(
        instances=[dicts[0], {"age": "old"}],
        options=PredictBatchOptions(
            return_errors=PredictBatchOptionsReturnErrors.INDIVIDUAL
        ),
    ),
)
explained = diabetes_explain.sync(
    client=client, body=DiabetesExplainRequest(instances=instances)
)
kind = CreateUploadRequestContentType.TEXTCSV
upload = create_upload.sync(client=client, body=CreateUploadRequest(content_type=kind))
lines = [columns, *rows]
text = "\n".join(",".join(map(str, line)) for line in lines)
sent = httpx.put(
    upload.upload_url,
    content=text,
    headers={"Content-Type": upload.content_type},
)
job = submit_job.sync(
    client=client,
    body=SubmitUploadedJobRequest(model="diabetes", input_uri=upload.input_uri),
)
deadline = time.monotonic() + 60
while job.completed_at is None:
    assert time.monotonic() < deadline, job
    time.sleep(0.1)
    job = get_job.sync(job.id, client=client)
result = get_job_result.sync(job.id, client=client)
refused = predict.sync("none", client=client, body=PredictRequest(instances=[1]))

print(
    json.dumps(
        {
            "models": [it.name for it in models.data],
            "prediction": predicted.predictions[0],
            "badRow": batch.errors[0].index,
            "badField": batch.errors[0].field,
            "features": [it.feature for it in explained.explanations[0].features],
            "method": explained.explanations[0].method,
            "stored": sent.json()["bytes"] == len(text),
            "status": job.status,
            "results": len(result.predictions),
            "refused": refused.error.code,
        }
    )
)

"""Explain the properties of all schemas in one table for the whole document.

A property that means something else in one schema has its own entry, `Schema.name`.
"""

from copy import deepcopy
from typing import Any

PROPERTIES: dict[str, str] = {
    # Requests
    "instances": "The rows to predict: objects of named columns, arrays of values in "
    "the order of the columns, or another form that the model's signature defines.",
    "parameters": "Parameters that the model's signature names, for all instances.",
    "options": "How to answer; all options may be left out.",
    "input_uri": "Names a file that was uploaded before, in place of `instances`.",
    "timeout_ms": "Shortens the deadline, in milliseconds.",
    "top_k": "Also return the scores of this many best labels.",
    "batch_size": "Rows per forward pass at most.",
    "return_errors": "What a bad row causes: `fail` refuses all rows, `individual` "
    "answers the good rows and names the bad ones.",
    "ExplainOptions.level": "`simple`: the five largest attributions. `full`: all.",
    "ExplainOptions.method": "Which explainer to use; `auto` chooses the best one that "
    "the model allows.",
    "ExplainOptions.samples": "Forward passes per instance at most.",
    "ExplainOptions.target": "Label or index of the class to explain; else the "
    "predicted one.",
    "ExplainOptions.seed": "Seed of random choices: the same seed gives the same "
    "explanation.",
    "normalize": "Scale each vector to length 1.",
    "encoding_format": "`base64`: float32 numbers in little endian.",
    "PredictDefaultModelRequest.model": "Which model to ask; without it, the site's "
    "default model.",
    "PredictBatchDefaultModelRequest.model": "Which model to ask; without it, the "
    "site's default model.",
    "dataframe_split": "A table as `pandas.DataFrame.to_dict('split')` writes it.",
    "dataframe_records": "A table as a list of rows, each an object of named columns.",
    "InvocationsRequest.instances": "Rows, or an object of columns.",
    "InvocationsRequest.inputs": "A tensor as nested lists, or an object of tensors.",
    "params": "Parameters of the signature; others are ignored.",
    "columns": "Names of the columns.",
    "dataframe_split.index": "Labels of the rows; ignored.",
    "dataframe_split.data": "The rows, each a list of values in the columns' order.",
    "file": "CSV with a header (`.csv`), or JSON Lines (`.jsonl`).",
    "SubmitJobForm.options": "The options as JSON.",
    "SubmitJobRequest.version": "A number or an alias; without it, the route chooses.",
    "SubmitUploadedJobRequest.version": "A number or an alias; without it, the route "
    "chooses.",
    "SubmitJobForm.version": "A number or an alias; without it, the route chooses.",
    "FeedbackRequest.request_id": "Of the call: its answer and `X-Request-Id` say it.",
    "FeedbackRequest.index": "Position of the instance in the call, from 0.",
    "FeedbackRequest.label": "What was true. It is compared with `prediction`; neither "
    "is kept.",
    "prediction": "What the call predicted: a label or a number.",
    "FeedbackRequest.value": "Any number that you care for.",
    "FeedbackRequest.score": "How good the answer was, from 0 to 1.",
    "rating": "In place of a score: `up` is 1, `down` is 0.",
    "feedback": "On up to 100 instances; each gets its own result.",
    "FeedbackListAnswer.data": "One result for each item, in the same order.",
    "FeedbackResult.request_id": "As the item named it; `null` if it was no text.",
    "FeedbackResult.index": "As the item named it; `null` if it was no number.",
    "FeedbackResult.model": "The version that answered, if the item was kept.",
    "FeedbackAnswer.request_id": "Of the call.",
    "FeedbackAnswer.model": "The version that answered.",
    "FeedbackResult.error": "Why the item was refused.",
    # Answers
    "predictions": "One prediction per instance, in the same order.",
    "PredictBatchAnswer.predictions": "One prediction per instance, in the same order; "
    "`null` at rows that `errors` names.",
    "InvocationsAnswer.predictions": "The model's own outputs, without labels.",
    "JobResult.predictions": "One prediction per row, in the same order; `null` at "
    "rows that `errors` names.",
    "embeddings": "One vector per instance, in the same order: a list of numbers, or a "
    "text with `encoding_format: base64`.",
    "dimension": "How many numbers each vector has.",
    "model": "Name of the model.",
    "version": "Number of the model's version.",
    "variant": "Role of the version in the route: `default`, `canary`, `published` for "
    "a version outside of it, or `fallback`.",
    "alias": "An alias of the version, such as `champion`.",
    "fallback": "True if the answer is the route's fixed answer, not the model's.",
    "fallback_reason": "Code of the error that you would have got without a fallback.",
    "request_id": "Names this request; quote it when you ask us.",
    "warnings": "Warnings about single predictions.",
    "explanations": "One explanation per instance; of predict, with `?explain=true`.",
    "PredictBatchAnswer.errors": "The rows without a prediction, with "
    "`return_errors: individual`.",
    "label": "Name of a class.",
    "score": "The model's score of the label, `null` if it was not finite.",
    "low_confidence": "The score is below the model's own threshold.",
    "scores": "With `options.top_k`: the best labels, best first.",
    "method": "The explainer that was used.",
    "level": "The requested level.",
    "base_value": "The model's mean output over its background sample.",
    "target": "The class that is explained.",
    "samples": "Forward passes that it took.",
    "features": "Largest attribution first; five at level `simple`.",
    "feature": "Name of the column.",
    "value": "Value of the column in this instance.",
    "attribution": "What the value added to the base value.",
    "additivity_residual": "Model output minus base value and all attributions.",
    # Errors
    "error": "What went wrong.",
    "OipError.error": "The code, and what went wrong.",
    "Job.error": "Why the job failed; `null` unless it did.",
    "error_code": "MLflow's word for the status.",
    "code": "A word for programs that never changes its meaning; /docs/errors explains "
    "each.",
    "Warning.code": "A word for programs, such as `NON_FINITE_OUTPUT`.",
    "message": "A sentence for people.",
    "details": "The instances and fields that are wrong.",
    "index": "Position of the instance, from 0.",
    "field": "Column or member that is wrong.",
    "issue": "What is wrong with it.",
    "received": "Type of what was sent.",
    "limit": "The limit that refused: `burst`, `key-day`, `max_batch_rows` …",
    "scope": "Whether the limit counts calls of the `customer` or of the `key`. With "
    "FORBIDDEN: the scope that the key lacks.",
    "source": "Who set the limit.",
    "unit": "What the numbers beside it count.",
    "maximum": "How much the limit allows.",
    "used": "How much of the limit is used.",
    "needed": "How much of the limit this call needed.",
    "window_s": "Length of the limit's window in seconds.",
    "resets_at": "When the limit starts again.",
    "retry_after_s": "When to come back, in seconds, as Retry-After says.",
    "timestamp": "When it was refused.",
    "docs": "Where this code is explained.",
    "type": "Where this code is explained.",
    "title": "The error's class.",
    "ProblemDetails.status": "The HTTP status.",
    "detail": "A sentence for people.",
    # Models
    "Model.description": "The data scientist's description of the model.",
    "ModelSummary.description": "The data scientist's description of the model.",
    "task": "`classification`, `regression`, `embedding` …; `null` if unknown.",
    "versions": "Versions that may be called, newest first.",
    "OipModel.versions": "Numbers of the versions that may be called.",
    "aliases": "Movable names of the version.",
    "deprecated_at": "When the version was deprecated; `null` if it is not.",
    "Model.signature": "Inputs, labels and parameters of the version that answers.",
    "explainable": "Whether it can be explained.",
    "rules": "The range, choices and length of values, by column.",
    "Model.example": "Instances that the model accepts.",
    "Model.limits": "The most rows per request with this key.",
    # Jobs and uploads
    "Job.id": "Names the job.",
    "job_id": "Names the job.",
    "Job.status": "State of the job.",
    "JobResult.status": "How the job ended.",
    "Job.model": "The version that predicts.",
    "JobResult.model": "The version that predicted.",
    "progress": "How many rows are done.",
    "rows_done": "Rows that are done, including failed ones.",
    "percent": "Finished part, from 0 to 100.",
    "created_at": "When it was submitted.",
    "started_at": "When its first row was predicted; `null` before.",
    "completed_at": "When it ended; `null` before.",
    "errors_url": "Path of the failed rows; `null` until the job has ended.",
    "JobResult.errors": "The rows that failed.",
    "url": "The whole address.",
    "expires_at": "When it stops working; `null`: never.",
    "upload_url": "Where to PUT the file; its signature stands in for a key.",
    "StoredUpload.input_uri": "Names the file in predictions and jobs.",
    "Upload.input_uri": "Names the file in predictions and jobs, once it was sent.",
    "bytes": "Size of the file.",
    "sha256": "Digest of the file, in hexadecimal.",
    "content_type": "Type of the file.",
    "max_bytes": "Largest size of the file.",
    # Accounts
    "customer": "Name of the customer.",
    "Me.key": "The key of this request.",
    "Key.id": "Public part of the key.",
    "Key.name": "The owner's name for the key.",
    "mode": "`live`, or `test`: everything is checked and nothing is charged.",
    "scopes": "What the key may do.",
    "plan": "Name of the plan.",
    "Me.limits": "Limits of one request and of all together.",
    "rates": "Requests per window.",
    "max_concurrency": "Requests in flight at once; `null`: no limit.",
    "quotas": "Allowances per day and month, and how much of them is used.",
    "max_predict_rows": "The most rows of one prediction.",
    "max_batch_rows": "The most rows of one batch.",
    "max_job_rows": "The most rows of one job.",
    "max_jobs_in_flight": "Jobs that are not finished; `null`: no limit.",
    "Quota.limit": "How much is allowed.",
    "Quota.name": "The period over which it is counted.",
    "Rate.name": "Name of the limit.",
    "UsageBucket.start": "When the minute, hour or day begins.",
    "UsageBucket.key": "Public part of the key, if grouped by key.",
    "UsageBucket.model": "Name of the model, if grouped by it.",
    "UsageBucket.version": "Number of the version, if grouped by it.",
    "requests": "Calls.",
    "UsageBucket.rows": "Instances of these calls.",
    "charged_requests": "Calls that count against quotas and are paid for.",
    "charged_rows": "Instances that count against quotas and are paid for.",
    "compute_ms": "Milliseconds on the device.",
    "shap_samples": "Forward passes of explanations.",
    "UsageBucket.errors": "Calls that were refused or failed.",
    "data": "The requested entries.",
    "next_cursor": "Send it as `cursor` for the next page; `null`: this is the last.",
    # Open Inference Protocol
    "name": "Its name.",
    "datatype": "`FP32`, `INT64`, `BOOL`, `BYTES` for text, …",
    "shape": "Length of each dimension, rows first; -1: any.",
    "OipTensor.data": "The values, flat and in row-major order, or as nested lists.",
    "OipTensor.parameters": "Such as `binary_data_size`.",
    "OipRequest.parameters": "Such as `binary_data_output`, `timeout`, and those that "
    "the model's signature declares.",
    "OipRequestedOutput.parameters": "Such as `binary_data` and `classification`.",
    "OipRequest.id": "Your own name for the request; the answer repeats it.",
    "OipAnswer.id": "The request's own `id`, if it had one.",
    "OipRequest.inputs": "The model's inputs.",
    "OipModel.inputs": "The tensors that the model accepts.",
    "OipModel.outputs": "The tensors that it returns; none before it was first loaded.",
    "OipRequest.outputs": "Only these outputs, if any are named.",
    "OipAnswer.outputs": "The model's own outputs, without labels or thresholds.",
    "model_name": "Name of the model.",
    "model_version": "Number of the version that answered.",
    "platform": "What runs the model.",
}


def described(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Copy the schema called `name`, and describe each of its properties."""
    copy = deepcopy(schema)
    _describe(copy, name)
    return copy


def _describe(schema: Any, owner: str) -> None:
    if isinstance(schema, list):
        for part in schema:
            _describe(part, owner)
        return
    if not isinstance(schema, dict):
        return
    for name, part in schema.get("properties", {}).items():
        text = PROPERTIES.get(f"{owner}.{name}") or PROPERTIES.get(name)
        if text is not None:
            part.setdefault("description", text)
        _describe(part, name)
    for keyword in ("items", "anyOf", "oneOf", "allOf"):
        _describe(schema.get(keyword), owner)

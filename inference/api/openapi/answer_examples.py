"""Example answers of operations that are not predictions."""

from typing import Any

_JOB = "job_01KAHSVX3T7QZ5N1M8RGE4Y2WB"
_VERSION = {"name": "breast-cancer", "version": "2", "variant": "default"}
_JOB_ACCEPTED = {
    "id": _JOB,
    "status": "pending",
    "model": _VERSION,
    "progress": {"rows_done": 0, "rows_total": 569, "rows_failed": 0, "percent": 0},
    "created_at": "2026-11-20T10:30:00Z",
    "started_at": None,
    "completed_at": None,
    "eta_s": None,
    "result_url": None,
    "errors_url": None,
    "error": None,
}
_JOB_COMPLETED = _JOB_ACCEPTED | {
    "status": "completed",
    "progress": {"rows_done": 569, "rows_total": 569, "rows_failed": 1, "percent": 100},
    "started_at": "2026-11-20T10:30:01Z",
    "completed_at": "2026-11-20T10:30:03Z",
    "result_url": f"/api/v1/jobs/{_JOB}/result",
    "errors_url": f"/api/v1/jobs/{_JOB}/errors",
}
_JOB_CANCELLED = _JOB_COMPLETED | {"status": "cancelled"}
_ROW_ERRORS = [
    {
        "index": 7,
        "code": "INVALID_INPUT",
        "field": "mean radius",
        "issue": "must be a number",
        "received": "string",
    }
]
_SUMMARY = {
    "name": "diabetes",
    "description": "How far the disease will be in a year.",
    "task": "regression",
    "default_version": "1",
    "versions": [
        {
            "version": "1",
            "aliases": ["champion"],
            "deprecated_at": None,
            "sunset_at": None,
            "use_instead": None,
        }
    ],
}
_UPLOAD = "upl_01KAHSVX3T7QZ5N1M8RGE4Y2WB"

EXAMPLES: dict[str, Any] = {
    "listModels": {"data": [_SUMMARY], "next_cursor": None},
    "getModel": _SUMMARY
    | {
        "signature": {
            "layout": "matrix",
            "labels": [],
            "columns": [{"name": "bmi", "type": "float32", "required": True}],
        },
        "rules": {"bmi": {"min": 10, "max": 80}},
        "example": [{"bmi": 32.1}],
        "explainable": True,
        "limits": {
            "max_predict_rows": 100,
            "max_batch_rows": 1000,
            "max_job_rows": 1_000_000,
        },
    },
    "listJobs": {"data": [_JOB_COMPLETED], "next_cursor": _JOB},
    "submitJob": _JOB_ACCEPTED,
    "getJob": _JOB_COMPLETED,
    "cancelJob": _JOB_CANCELLED,
    "getJobResult": {
        "job_id": _JOB,
        "status": "completed",
        "model": _VERSION,
        "predictions": [
            {"label": "malignant", "score": 0.98, "low_confidence": False},
            None,
        ],
        "errors": _ROW_ERRORS,
    },
    "getJobErrors": {"data": _ROW_ERRORS},
    "createJobResultLink": {
        "url": f"https://models.example/api/v1/jobs/{_JOB}/result?expires=1795603800"
        "&signature=3q2-7w",
        "expires_at": "2026-11-20T11:30:00Z",
    },
    "createUpload": {
        "upload_url": f"https://models.example/api/v1/uploads/{_UPLOAD}/content"
        "?signature=3q2-7w",
        "input_uri": f"upload://{_UPLOAD}",
        "expires_at": "2026-11-20T11:30:00Z",
        "content_type": "text/csv",
        "max_bytes": 1_000_000_000,
    },
    "sendUpload": {
        "input_uri": f"upload://{_UPLOAD}",
        "bytes": 81,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "expires_at": "2026-11-20T11:30:00Z",
    },
    "sendFeedback": {
        "request_id": "req_01JZ8Q6K3V9T4X2N7B5M0C1D2E",
        "index": 0,
        "model": {"name": "breast-cancer", "version": "3"},
    },
    "getMe": {
        "customer": "Example Clinic",
        "key": {
            "id": "4fTqZ0vLx2Ab",
            "name": "Demo",
            "mode": "live",
            "scopes": ["predict", "explain", "jobs", "feedback", "usage"],
            "models": [],
            "expires_at": None,
            "limits": None,
        },
        "plan": "Team",
        "limits": {
            "rates": [
                {"name": "burst", "quota": 20, "window_s": 1},
                {"name": "sustained", "quota": 300, "window_s": 60},
            ],
            "max_concurrency": None,
            "max_predict_rows": 100,
            "max_batch_rows": 1000,
            "max_job_rows": 1_000_000,
            "max_body_bytes": None,
            "max_jobs_in_flight": None,
            "max_uploads": 1000,
            "max_upload_bytes": 10_000_000_000,
        },
        "quotas": [
            {
                "name": "month",
                "unit": "requests",
                "limit": 400_000,
                "used": 1234,
                "resets_at": "2026-12-01T00:00:00Z",
            }
        ],
    },
    "getUsage": {
        "data": [
            {
                "start": "2026-11-20T00:00:00Z",
                "requests": 120,
                "rows": 480,
                "charged_requests": 118,
                "charged_rows": 478,
                "compute_ms": 96.5,
                "shap_samples": 0,
                "errors": 2,
                "cost": "1.18",
                "cost_per_request": "0.01",
            }
        ]
    },
    "oipGetModel": {
        "name": "diabetes",
        "versions": ["1"],
        "platform": "modelyard_engine",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 10]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1]}],
    },
}
EXAMPLES["oipGetModelWithVersion"] = EXAMPLES["oipGetModel"]

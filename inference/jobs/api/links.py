"""Sign links to a job's output that work without a key for a limited time."""

from datetime import datetime, timedelta

from django.core.signing import Signer
from django.utils.crypto import constant_time_compare

from inference.errors.api_error import ApiError, ErrorCode

LIFETIME = timedelta(hours=1)


def query(job_id: str, *, expires_at: datetime) -> str:
    """Return the query string with which anybody can fetch this one output."""
    expires = int(expires_at.timestamp())
    return f"expires={expires}&signature={_sign(job_id, str(expires))}"


def require_valid(job_id: str, *, expires: str, signature: str, now: datetime) -> None:
    """Raise ApiError NOT_FOUND for a wrong signature, GONE for an expired one."""
    if not constant_time_compare(signature, _sign(job_id, expires)):
        raise ApiError(ErrorCode.NOT_FOUND, "There is no such job.")
    if int(expires) <= now.timestamp():
        raise ApiError(ErrorCode.GONE, "The link has expired. Ask for another one.")


def _sign(job_id: str, expires: str) -> str:
    return Signer(salt="inference.jobs.links").signature(f"{job_id}:{expires}")

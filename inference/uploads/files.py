"""Create, receive, read and delete uploaded files.

The storage `uploads` of STORAGES holds them: the local disk or an object store. On the
way they pass through a file on the local disk and are never whole in memory.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import Storage, storages
from django.core.signing import Signer
from django.db import transaction
from django.db.models import Min, Q, QuerySet, Sum
from django.http import UnreadablePostError
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from accounts.admission.limit_words import counted
from accounts.admission.limits import Limits, ReachedLimit
from accounts.customers import plans
from accounts.models import Customer
from inference.codecs.files import uploaded
from inference.errors.api_error import ApiError, ErrorCode
from inference.models import Upload

_PIECE_BYTES = 256 * 1024
# For this time after a file expired, its row answers GONE.
_REMEMBERED = timedelta(days=7)
_MAX_REMOVALS = 500


class _OnDisk(File):  # type: ignore[type-arg]  # not generic at run time
    """A file that a storage on the same disk may take by a rename."""

    def temporary_file_path(self) -> str:
        return str(self.name)


@transaction.atomic
def announce(
    customer: Customer, *, content_type: str, max_bytes: int | None = None
) -> Upload:
    """Create an upload without its file; raise ApiError QUOTA_EXCEEDED."""
    limits = plans.limits_of(customer)
    bound = min(settings.UPLOAD_MAX_BYTES, limits.max_upload_bytes)
    _take_turn(customer.pk)
    kept = _kept(customer.pk).count()
    if kept >= limits.max_uploads:
        raise _no_room(customer, limits, "max_uploads", "uploads", used=kept, needed=1)
    return Upload.objects.create(
        id=f"upl_{secrets.token_hex(16)}",
        customer=customer,
        content_type=uploaded.known_type(content_type),
        max_bytes=bound if max_bytes is None else min(bound, max_bytes),
        expires_at=timezone.now() + timedelta(seconds=settings.UPLOAD_TTL_S),
    )


def sign(upload: Upload) -> str:
    """Return the signature with which anybody can send this file until it expires.

    HMAC-SHA256 with the installation's secret key over id, type, size and expiry.
    """
    expires = int(upload.expires_at.timestamp())
    agreed = f"{upload.pk}:{upload.content_type}:{upload.max_bytes}:{expires}"
    return Signer(salt="inference.uploads").signature(agreed)


def find_signed(upload_id: str, signature: str) -> Upload:
    """Find the upload that a signature allows; raise ApiError NOT_FOUND or GONE."""
    # Checked first, because PostgreSQL refuses to look up some invalid ids.
    upload = uploaded.is_id(upload_id) and Upload.objects.filter(pk=upload_id).first()
    if not upload or not constant_time_compare(signature, sign(upload)):
        raise uploaded.not_found()
    if upload.expires_at <= timezone.now():
        raise uploaded.gone()
    return upload


def find(upload_id: str, *, customer_id: int) -> Upload:
    """Find a customer's complete file; raise ApiError NOT_FOUND, GONE or CONFLICT."""
    upload = Upload.objects.filter(pk=upload_id, customer_id=customer_id).first()
    if upload is None:
        raise uploaded.not_found()
    if upload.expires_at <= timezone.now():
        raise uploaded.gone()
    if upload.stored_at is None:
        raise uploaded.not_sent()
    return upload


def receive(upload: Upload, stream: IO[bytes], *, length: int) -> Upload:
    """Store the file; it may be sent again until one attempt is complete.

    Raises ApiError: CONFLICT if it was stored before, TOO_LARGE, QUOTA_EXCEEDED, or
    REQUEST_TIMEOUT if the transfer breaks off.
    """
    if upload.stored_at is not None:
        raise ApiError(ErrorCode.CONFLICT, "This file was uploaded already.")
    if length > upload.max_bytes:
        raise ApiError(
            ErrorCode.TOO_LARGE,
            f"The file may have at most {upload.max_bytes} bytes.",
            facts={"maximum": upload.max_bytes},
        )
    _reserve(upload, length)
    try:
        return _store(upload, stream, length)
    except BaseException:
        Upload.objects.filter(pk=upload.pk, stored_at=None).update(bytes=0)
        raise


def _store(upload: Upload, stream: IO[bytes], length: int) -> Upload:
    with NamedTemporaryFile(
        dir=settings.HOME.uploads, prefix="incoming-", delete=False
    ) as file:
        path = Path(file.name)
        try:
            digest = _copy(stream, file, length)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            name = _storage().save(upload.pk, _OnDisk(file, name=str(path)))
        finally:
            path.unlink(missing_ok=True)
    now = timezone.now()
    stored = Upload.objects.filter(pk=upload.pk, stored_at=None).update(
        stored_at=now, file=name, bytes=length, sha256=digest
    )
    if not stored:
        # Another attempt was faster.
        _storage().delete(name)
        raise ApiError(ErrorCode.CONFLICT, "This file was uploaded already.")
    upload.refresh_from_db()
    return upload


def open_file(upload: Upload) -> IO[bytes]:
    """Open a file for reading; raise ApiError GONE if it was just deleted."""
    try:
        opened: Any = _storage().open(upload.file, "rb")
    except FileNotFoundError:
        raise uploaded.gone() from None
    return opened  # type: ignore[no-any-return]  # Django's File reads like a file


def read(upload: Upload, *, max_bytes: int) -> bytes:
    """Read a file into memory; raise ApiError TOO_LARGE or GONE."""
    if upload.bytes > max_bytes:
        raise uploaded.too_large(max_bytes)
    with open_file(upload) as file:
        return file.read()


def copy(upload: Upload, path: Path) -> None:
    """Hard-link the file to `path` on the local disk, or copy it there."""
    storage = _storage()
    try:
        os.link(storage.path(upload.file), path)
    except (NotImplementedError, OSError):
        # Object stores have no paths, and hard links work on one disk only.
        with path.open("xb") as file:
            file.writelines(pieces(upload))


def pieces(upload: Upload) -> Iterator[bytes]:
    with open_file(upload) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def remove(upload: Upload) -> None:
    """Delete a file and its row early.

    Jobs that were submitted with it have their own copy.
    """
    if upload.file:
        _storage().delete(upload.file)
    Upload.objects.filter(pk=upload.pk).delete()


def remove_expired(*, now: datetime) -> int:
    """Delete expired files, and later their rows; return how many files.

    Also deletes what interrupted transfers left on the disk.
    """
    expired = Upload.objects.filter(expires_at__lte=now).exclude(file="")
    removed = 0
    for upload in expired.order_by("expires_at")[:_MAX_REMOVALS]:
        _storage().delete(upload.file)
        Upload.objects.filter(pk=upload.pk).update(file="")
        removed += 1
    Upload.objects.filter(expires_at__lte=now - _REMEMBERED, file="").delete()
    oldest = (now - timedelta(seconds=settings.UPLOAD_TTL_S)).timestamp()
    for path in settings.HOME.uploads.glob("incoming-*"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
    return removed


@transaction.atomic
def _reserve(upload: Upload, length: int) -> None:
    """Count a file's bytes before they arrive, so that two cannot both be the last."""
    _take_turn(upload.customer_id)
    customer = Customer.objects.select_related("plan").get(pk=upload.customer_id)
    limits = plans.limits_of(customer)
    others = _kept(customer.pk).exclude(pk=upload.pk)
    used = others.aggregate(used=Sum("bytes"))["used"] or 0
    if used + length > limits.max_upload_bytes:
        raise _no_room(
            customer, limits, "max_upload_bytes", "bytes", used=used, needed=length
        )
    Upload.objects.filter(pk=upload.pk, stored_at=None).update(bytes=length)


def _take_turn(customer_id: int) -> None:
    Customer.objects.select_for_update().get(pk=customer_id)


def _kept(customer_id: int) -> QuerySet[Upload]:
    """Return uploads that have not expired, or whose file is not deleted yet."""
    return Upload.objects.filter(
        Q(expires_at__gt=timezone.now()) | ~Q(file=""), customer_id=customer_id
    )


def _no_room(
    customer: Customer, limits: Limits, name: str, unit: str, *, used: int, needed: int
) -> ApiError:
    maximum: int = getattr(limits, name)
    first = _kept(customer.pk).aggregate(first=Min("expires_at"))["first"]
    wait_s = (first - timezone.now()).total_seconds() if first else None
    return ApiError(
        ErrorCode.QUOTA_EXCEEDED,
        f"Limit for uploads that have not expired: {counted(maximum, unit)}. You keep"
        f" {used}, and this needs {needed} more. Let some expire.",
        # Files are deleted within minutes after they expire.
        retry_after_s=None if wait_s is None else max(60.0, wait_s),
        limit=ReachedLimit(
            name=name,
            scope="customer",
            source=limits.source_of(name),
            unit=unit,
            maximum=maximum,
            used=used,
            needed=needed,
        ),
    )


def _copy(stream: IO[bytes], file: IO[bytes], length: int) -> str:
    digest, left = hashlib.sha256(), length
    try:
        while left and (piece := stream.read(min(_PIECE_BYTES, left))):
            digest.update(piece)
            file.write(piece)
            left -= len(piece)
    except UnreadablePostError:
        pass
    if left:
        message = "The file did not arrive as a whole."
        raise ApiError(ErrorCode.REQUEST_TIMEOUT, message)
    return digest.hexdigest()


def _storage() -> Storage:
    return storages["uploads"]

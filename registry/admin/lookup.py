"""Find the row that the address of an admin page names."""

from typing import Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.http import Http404, HttpRequest


def get_or_404(admin: Any, request: HttpRequest, object_id: str) -> Any:
    """Return the row that a page's address names; raise Http404 if it does not exist.

    `admin` is a ModelAdmin; unfold's are untyped.
    """
    found = admin.get_object(request, object_id)
    if found is None:
        raise Http404
    return found


def require_key(model: type[Model], object_id: str) -> None:
    """Raise Http404 if `object_id` is not a valid primary key of the model."""
    try:
        model._meta.pk.to_python(unquote(object_id))
    except ValidationError:
        raise Http404 from None

"""Explain why a call was refused: what happened, which limit, and what to do."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.customers import plans
from accounts.models import Customer
from accounts.portal import access
from accounts.portal.forms import RefusalSearchForm
from accounts.quotas import display
from accounts.usage import refusal_sentences, refused_calls

_PER_PAGE = 25


@access.for_members
@require_safe
def index(request: HttpRequest, customer: Customer) -> HttpResponse:
    """List recent refusals, or those of one request."""
    now = timezone.now()
    form = RefusalSearchForm(request.GET)
    request_id = form.cleaned_data["q"].strip() if form.is_valid() else ""
    found = refused_calls.of_customer(customer.pk, request_id=request_id)
    names = dict(customer.api_keys.values_list("key_id", "name"))
    page = Paginator(found, _PER_PAGE).get_page(request.GET.get("page"))
    return access.show(
        request,
        customer,
        "refusals.html",
        section="refusals",
        form=form,
        request_id=request_id,
        page=page,
        rows=[
            (
                refusal,
                names.get(refusal.key_id, ""),
                refusal_sentences.sentences(refusal.limit, now=now),
            )
            for refusal in page
        ],
        limits=plans.limits_of(customer),
        quotas=display.bars(customer, now=now),
        kept=refused_calls.KEPT,
    )

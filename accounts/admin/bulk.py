"""Issue many keys and import many customers in the admin."""

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from unfold.decorators import action

from accounts.admin.bulk_forms import CustomerFileForm, ManyKeysForm
from accounts.admin.lookup import get_or_404
from accounts.admission.limit_words import counted
from accounts.customers import bulk_keys, csv_import, shown_once
from accounts.usage import export


class BulkActions:
    """Mixin of the customers' admin."""

    def has_issue_many_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        return request.user.has_perm("accounts.add_apikey")

    def has_import_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.add_customer")

    @action(description="Issue many", icon="key", permissions=["issue_many"])
    def issue_many(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Issue a key for each name; show the tokens once, with a file to download."""
        customer = get_or_404(self, request, object_id)
        form = ManyKeysForm(request.POST or None)
        back = reverse("admin:accounts_customer_change", args=(customer.pk,))
        if customer.archived_at is not None:
            messages.error(request, f"{customer} is archived. Reopen it first.")
            return HttpResponseRedirect(back)
        if request.method == "POST" and form.is_valid():
            issued = bulk_keys.issue(
                customer,
                form.cleaned_data["key_names"],
                scopes=form.cleaned_data["scopes"],
                mode="test" if form.cleaned_data["mode"] == "test" else "live",
                by=cast(User, request.user),
            )
            what = f"Issued {counted(len(issued), 'API keys')}."
            self.log_change(request, customer, what)  # type: ignore[attr-defined]
            here = reverse("admin:accounts_customer_issue_many", args=(customer.pk,))
            keys = [(one.key.name, one.key.key_id, one.token) for one in issued]
            return shown_once.lead_to(request, here, {"keys": keys})
        if shown_once.is_asked_for(request):
            secret = shown_once.take(request)
            if secret is None:
                messages.info(request, "These keys were shown once.")
                return HttpResponseRedirect(back)
            return self._page(
                request,
                "accounts/issued_many.html",
                title=f"{counted(len(secret['keys']), 'API keys')} of {customer}",
                customer=customer,
                issued=secret["keys"],
                file=_as_link(secret["keys"]),
                back_url=back,
            )
        return self._page(
            request,
            "accounts/issue_many.html",
            title=f"Issue many keys to {customer}",
            customer=customer,
            form=form,
            back_url=back,
        )

    @action(
        description="Import from CSV",
        icon="upload",
        permissions=["import"],
        url_path="import",
    )
    def import_customers(self, request: HttpRequest) -> HttpResponse:
        """Show what a file would add, and add it when that was confirmed."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        back = reverse("admin:accounts_customer_changelist")
        text = request.POST.get("confirmed", "")
        if text:
            try:
                added = csv_import.add(text)
            except ValidationError:
                # The file has a problem now; reading it again below shows which.
                form = CustomerFileForm()
            else:
                messages.success(request, f"Added {counted(added, 'customers')}.")
                return HttpResponseRedirect(back)
        else:
            form = CustomerFileForm(request.POST or None, request.FILES or None)
            if request.FILES and form.is_valid():
                text = form.cleaned_data["file"]
        context: dict[str, Any] = {"form": form}
        if text:
            context |= {"reading": csv_import.read(text), "text": text}
        return self._page(
            request,
            "accounts/import_customers.html",
            title="Import customers",
            back_url=back,
            **context,
        )

    def _page(
        self, request: HttpRequest, template: str, **context: Any
    ) -> HttpResponse:
        frame = self.admin_site.each_context(request)  # type: ignore[attr-defined]
        opts = self.opts  # type: ignore[attr-defined]
        return render(request, template, {**frame, "opts": opts, **context})


def _as_link(issued: Iterable[Sequence[str]]) -> str:
    """Write the keys as CSV into a `data:` address, which browsers download.

    So the tokens are sent only once: the file needs no second request.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("name", "key_id", "api_key"))
    writer.writerows(
        (export.plain_text(name), key_id, token) for name, key_id, token in issued
    )
    encoded = base64.b64encode(file.getvalue().encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{encoded}"

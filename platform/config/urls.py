"""Every URL the site answers."""

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

urlpatterns: list[URLPattern | URLResolver] = [path("admin/", admin.site.urls)]
if find_spec("accounts.authentication"):
    from config import docs

    urlpatterns += [
        path("", docs.start, name="start"),
        path("docs/", docs.SwaggerView.as_view(url_name="schema"), name="docs"),
        path("docs/redoc/", docs.RedocView.as_view(url_name="schema"), name="redoc"),
        path("docs/redoc/redoc.js", docs.redoc_bundle, name="redoc-bundle"),
        path("docs/errors", docs.errors, name="errors"),
        path("api/schema/", docs.SchemaView.as_view(), name="schema"),
        path("robots.txt", docs.robots),
    ]
for prefix, module in (
    ("api/v1/", "inference.urls"),
    ("api/v1/", "inference.urls_jobs"),
    ("api/v1/", "accounts.urls"),
    ("internal/", "accounts.urls_internal"),
):
    if find_spec(module):
        urlpatterns.append(path(prefix, include(module)))
urlpatterns.append(
    path(
        "favicon.ico",
        RedirectView.as_view(url="/static/modelyard/favicon.svg", permanent=True),
    )
)

handler400 = "config.error_pages.bad_request"
handler403 = "config.error_pages.forbidden"
handler404 = "config.error_pages.not_found"
handler500 = "config.error_pages.server_error"

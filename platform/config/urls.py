"""The public URLs of the site; `urls_internal` holds those for our own processes."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from accounts.admin.personal import pages as personal_pages
from config.pages import check, docs, messages
from config.pages.login import login, portal_forgotten, portal_sign_in, portal_sign_out
from config.pages.search import search

admin.autodiscover()

urlpatterns = [
    path("", docs.start, name="start"),
    path("docs/", docs.SwaggerView.as_view(url_name="schema"), name="docs"),
    path("docs/redoc/", docs.RedocView.as_view(url_name="schema"), name="redoc"),
    path("docs/redoc/redoc.js", docs.redoc_bundle, name="redoc-bundle"),
    path("docs/errors", docs.errors, name="errors"),
    path("api/schema/", docs.SchemaView.as_view(), name="schema"),
    path("api/v1/", include("inference.api.urls")),
    path("api/v1/", include("inference.jobs.api.urls")),
    path("api/v1/", include("accounts.api.urls")),
    path("api/v1/", include("inference.uploads.urls")),
    # Before the admin's URLs, because it replaces the admin's own login page.
    path("admin/login/", login),
    path("admin/search/", admin.site.admin_view(search)),
    path("admin/messages/", admin.site.admin_view(messages.page), name="messages"),
    path(
        "admin/messages/read",
        admin.site.admin_view(messages.read_all),
        name="messages-read",
    ),
    path(
        "admin/messages/by-mail",
        admin.site.admin_view(messages.by_mail),
        name="messages-by-mail",
    ),
    path(
        "admin/messages/<int:message_id>",
        admin.site.admin_view(messages.follow_link),
        name="message",
    ),
    path("admin/check/", admin.site.admin_view(check.page), name="check"),
    path(
        "admin/check/summary",
        admin.site.admin_view(check.summary),
        name="check-summary",
    ),
    path("admin/my-key/", admin.site.admin_view(personal_pages.my_key), name="my-key"),
    path(
        "admin/my-key/for-a-page",
        admin.site.admin_view(personal_pages.key_for_a_page),
        name="key-for-a-page",
    ),
    # Bookmarks of pages that the page of a route replaced.
    re_path(
        "^admin/inference/(?:loadedversion|servingroute|snapshotstate)/",
        RedirectView.as_view(url="/admin/registry/route/"),
    ),
    path("admin/", admin.site.urls),
    path("portal/sign-in/", portal_sign_in, name="portal-sign-in"),
    path("portal/sign-out/", portal_sign_out, name="portal-sign-out"),
    path("portal/forgotten/", portal_forgotten, name="portal-forgotten"),
    path("portal/", include("accounts.portal.urls")),
    path(
        "favicon.ico",
        RedirectView.as_view(url="/static/modelyard/favicon.svg", permanent=True),
    ),
    path("robots.txt", docs.robots),
]

handler400 = "config.pages.error_pages.bad_request"
handler403 = "config.pages.error_pages.forbidden"
handler404 = "config.pages.error_pages.not_found"
handler500 = "config.pages.error_pages.server_error"

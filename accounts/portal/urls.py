"""Mounted at /portal/; the site's URLs add sign-in, which is limited by address."""

from django.urls import path

from accounts.portal import account, keys, overview, refusals, try_it

app_name = "portal"
urlpatterns = [
    path("", overview.home, name="home"),
    path("account/", account.account, name="account"),
    path("set-password/", account.set_password, name="set-password"),
    path("<int:customer_id>/", overview.overview, name="overview"),
    path("<int:customer_id>/usage.csv", overview.export, name="export"),
    path("<int:customer_id>/keys/", keys.index, name="keys"),
    path("<int:customer_id>/keys/<str:key_id>/rotate/", keys.rotate, name="rotate"),
    path("<int:customer_id>/keys/<str:key_id>/revoke/", keys.revoke, name="revoke"),
    path("<int:customer_id>/keys/<str:key_id>/issued/", keys.issued, name="issued"),
    path("<int:customer_id>/refusals/", refusals.index, name="refusals"),
    path("<int:customer_id>/try/", try_it.try_it, name="try"),
]

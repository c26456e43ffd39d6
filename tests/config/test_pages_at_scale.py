"""Pages need no more queries, and are no longer, with more rows.

`python -m benchmarks.scale` measures the same pages with a large database.
"""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from benchmarks import rows, scale

pytestmark = pytest.mark.django_db

# One query per row would exceed this by far.
_MOST_FOR_A_LIST = 17
# The page of a customer adds six kinds of sums from minutes, hours and days, that of a
# version shows all that is known of it.
_MOST_FOR_A_PAGE = 42
# No page lists all customers or keys as choices.
_MOST_OPTIONS = rows.SMALL.customers - 1


def test_no_page_asks_or_offers_something_for_each_row(home):
    rows.fill(rows.SMALL)
    client = scale.client_of_everything()
    asked, offered = {}, {}

    for page in scale.pages():
        with CaptureQueriesContext(connection) as queries:
            response = client.get(page)
        assert response.status_code in (200, 302), page
        content = response.getvalue()
        is_list = "/admin/" in page and "/change/" not in page
        most = _MOST_FOR_A_LIST if is_list and page != "/admin/" else _MOST_FOR_A_PAGE
        if len(queries) > most:
            asked[page] = len(queries)
        # There are as many permissions as kinds of rows.
        if "/auth/" not in page and content.count(b"<option") > _MOST_OPTIONS:
            offered[page] = content.count(b"<option")

    assert asked == {}
    assert offered == {}

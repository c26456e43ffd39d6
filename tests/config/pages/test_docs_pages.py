import shlex

import msgspec
import pytest
from django.core.cache import cache
from django.urls import reverse

from config.pages import docs
from inference.errors.api_error import ErrorCode
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_counts():
    """Reset the rate limit, so that no test inherits another one's count."""
    cache.clear()
    yield
    cache.clear()


PAGES = ["start", "docs", "redoc", "errors"]


@pytest.mark.parametrize("name", PAGES)
def test_pages_for_people_are_strict_about_what_they_load(client, name):
    response = client.get(reverse(name))

    policy = response["Content-Security-Policy"]
    assert response.status_code == 200
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert ("unsafe-inline" in policy) == (name == "redoc")


def test_only_the_admin_may_evaluate_scripts(client):
    policy = client.get("/admin/login/")["Content-Security-Policy"]

    assert "'unsafe-eval'" in policy
    assert "'unsafe-inline'" in policy


def test_every_code_has_its_anchor(client):
    page = client.get("/docs/errors").content.decode()

    for code in ErrorCode:
        assert f'id="{code.value.lower()}"' in page


def test_the_command_on_the_start_page_is_one_that_a_shell_reads_back(client, publish):
    version = ModelVersionFactory.create(
        registered_model__public=True,
        registered_model__name="it's",
        input_example=[{"width": 1.0, "height": 2.0}],
    )
    RouteFactory.create(default_version=version)
    publish()

    command = client.get("/").context["first_call"]["command"]

    words = shlex.split(command.replace("\\\n", ""))
    assert words[1] == "http://testserver/api/v1/models/it%27s/predict"
    assert msgspec.json.decode(words[-1]) == {
        "instances": [{"width": 1.0, "height": 2.0}]
    }


def test_a_private_model_is_not_named_on_the_start_page(client, publish):
    RouteFactory.create(
        default_version=ModelVersionFactory.create(registered_model__name="secret-one")
    )
    publish()

    assert b"secret-one" not in client.get("/").content


def test_redoc_fetches_no_logo_from_its_maker(client):
    script = client.get("/docs/redoc/redoc.js").content

    assert len(script) > 500_000
    assert b"cdn.redoc.ly" not in script


def test_a_page_that_does_not_exist_says_so_in_html(client):
    response = client.get("/nowhere")

    assert response.status_code == 404
    assert b"Page not found" in response.content


def test_an_unknown_api_path_has_the_one_error_shape(client, settings):
    response = client.get("/api/v1/nowhere")

    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "NOT_FOUND"
    assert error["docs"] == f"{settings.MODELYARD_PUBLIC_URL}/docs/errors#not_found"


def _first_refusal(client, **headers):
    """Ask until refused; meanwhile the window may end once."""
    limit = int(docs.PAGES_PER_MINUTE.partition("/")[0])
    answers = (client.get("/", **headers) for _ in range(2 * limit + 1))
    return next(answer for answer in answers if answer.status_code != 200)


def test_too_many_pages_from_one_address_are_refused(client):
    refused = _first_refusal(client)

    assert refused.status_code == 429
    assert refused["Retry-After"] == "60"
    others = {client.get(reverse(name)).status_code for name in PAGES}
    assert others == {429}
    assert client.get("/docs/errors", REMOTE_ADDR="10.0.0.9").status_code == 200


def test_callers_behind_the_gateway_are_told_apart(client):
    behind = {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "1.2.3.4, 10.0.0.1"}
    other = {**behind, "HTTP_X_FORWARDED_FOR": "1.2.3.4, 10.0.0.2"}

    refused = _first_refusal(client, **behind)

    assert refused.status_code == 429
    assert client.get("/docs/errors", **other).status_code == 200


def test_robots_stay_out_of_the_admin(client):
    assert b"Disallow: /admin/" in client.get("/robots.txt").content


def test_the_favicon_is_ours(client):
    assert client.get("/favicon.ico")["Location"] == "/static/modelyard/favicon.svg"

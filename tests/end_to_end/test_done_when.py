"""Test what a person new to Modelyard does in the first hour, from the outside."""

import csv
import io
import json
import re
import shlex
import subprocess

import httpx
import pytest

from tests.end_to_end.conftest import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def admin(modelyard):
    """An HTTP client with the session of a signed-in administrator."""
    facts = modelyard.demo
    with httpx.Client(base_url=facts["base_url"], timeout=60) as client:
        login = client.get("/admin/login/").text
        response = client.post(
            "/admin/login/",
            data={
                "username": facts["admin_user"],
                "password": facts["admin_password"],
                "csrfmiddlewaretoken": csrf(login),
                "next": "/admin/",
            },
            headers={"Referer": f"{facts['base_url']}/admin/login/"},
        )
        assert response.status_code == 302, response.text[:500]
        yield client


def csrf(page):
    return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]


def test_printed_commands_answer_when_pasted(modelyard):
    commands = [line for line in modelyard.card if line.startswith("curl ")]

    answers = [
        json.loads(
            subprocess.run(
                shlex.split(command), cwd=ROOT, capture_output=True, check=True
            ).stdout
        )
        for command in commands
    ]

    assert len(commands) == 2
    assert all(answer["predictions"][0]["label"] for answer in answers)


def test_demo_file_is_private_and_complete(modelyard):
    path = modelyard.installation.home / "demo.json"

    assert path.stat().st_mode & 0o777 == 0o600
    assert set(modelyard.demo) >= {
        "base_url",
        "admin_url",
        "admin_user",
        "admin_password",
        "api_key",
        "bench_api_key",
        "metrics_url",
        "customer_user",
        "customer_password",
        "models",
    }
    assert all(len(m["instances"]) == 2 for m in modelyard.demo["models"].values())


@pytest.mark.parametrize(
    "model",
    ["breast-cancer", "diabetes", "digits", "language", "sentences", "writer"],
)
def test_every_demo_model_predicts(modelyard, model):
    response = modelyard.predict(model)

    assert response.status_code == 200, response.text
    assert response.json()["model"]["name"] == model


def test_canary_gets_its_tenth_and_then_its_half(modelyard):
    bench = modelyard.demo["bench_api_key"]

    def canaries():
        """Return how many of 100 calls, of two blocks in part, reach the canary."""
        versions = [
            modelyard.predict(token=bench).json()["model"]["version"]
            for _ in range(100)
        ]
        return versions.count("3")

    def set_weight(percent):
        code = (
            "from registry import routes; from registry.models import Route;"
            "from django.contrib.auth.models import User;"
            "routes.set_canary_weight(Route.objects.get("
            f"registered_model__name='breast-cancer'), weight_percent={percent},"
            "by=User.objects.get(username='admin'))"
        )
        modelyard.installation.manage("shell", "-c", code).check_returncode()

    # Another test may just have moved it back.
    wait_until(lambda: 0 < canaries() <= 20, what="a tenth")
    set_weight(50)
    wait_until(lambda: 32 <= canaries() <= 68, what="a half")
    set_weight(10)


def test_explanation_adds_up(modelyard):
    response = modelyard.client.post(
        "/api/v1/models/breast-cancer/explain",
        json={
            "instances": modelyard.rows("breast-cancer")[:1],
            "options": {"level": "full"},
        },
        headers=modelyard.headers(),
    )

    assert response.status_code == 200, response.text
    (explanation,) = response.json()["explanations"]
    assert len(explanation["features"]) == 30
    assert abs(explanation["additivity_residual"]) < 0.01


def test_option_that_no_explainer_knows_is_named_with_those_it_may_be(modelyard):
    def refused(**options):
        response = modelyard.client.post(
            "/api/v1/models/breast-cancer/explain",
            json={
                "instances": modelyard.rows("breast-cancer")[:1],
                "options": options,
            },
            headers=modelyard.headers(),
        )
        assert response.status_code == 400, response.text
        (detail,) = response.json()["error"]["details"]
        return detail

    target, method = refused(target="nobody"), refused(method="magic")

    assert target["field"] == "options.target"
    assert "malignant, benign" in target["issue"]
    assert method["field"] == "options.method"
    assert "gradient" in method["issue"]


def test_explanation_is_drawn_as_svg(modelyard):
    response = modelyard.client.post(
        "/api/v1/models/breast-cancer/explain",
        json={"instances": modelyard.rows("breast-cancer")[:1]},
        headers={**modelyard.headers(), "Accept": "image/svg+xml"},
    )

    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("image/svg+xml")
    assert "<svg" in response.text


def test_csv_job_gives_its_results_back_as_csv(modelyard):
    rows = modelyard.rows("breast-cancer") * 300
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)

    submitted = modelyard.client.post(
        "/api/v1/jobs",
        data={"model": "breast-cancer"},
        files={"file": ("rows.csv", file.getvalue(), "text/csv")},
        headers=modelyard.headers(),
    )
    assert submitted.status_code == 202, submitted.text
    url = f"/api/v1/jobs/{submitted.json()['id']}"

    def finished():
        answer = modelyard.client.get(url, headers=modelyard.headers())
        assert answer.status_code == 200, answer.text
        job = answer.json()
        return job if job["status"] not in ("pending", "processing") else None

    # The plan of this key allows 20 requests a second.
    job = wait_until(finished, timeout_s=180, what="the end of the job", pause_s=0.2)
    assert job["status"] == "completed", job
    result = modelyard.client.get(
        f"{url}/result",
        headers={**modelyard.headers(), "Accept": "text/csv"},
    )
    assert len(list(csv.DictReader(io.StringIO(result.text)))) == 600


def test_key_is_issued_exhausted_and_revoked(modelyard):
    code = (
        "from accounts.customers import api_keys; from accounts.models import *;"
        "plan = Plan.objects.create(name='Tiny', daily_quota=7);"
        "customer = Customer.objects.create(name='Tiny', plan=plan);"
        "print(api_keys.issue(customer, name='k', scopes=['predict']).token)"
    )
    token = modelyard.installation.manage("shell", "-c", code).stdout.split()[-1]
    wait_until(
        lambda: modelyard.predict(token=token, instances=[]).status_code == 400,
        what="the new key",
    )

    statuses = [modelyard.predict(token=token).status_code for _ in range(9)]
    refused = modelyard.predict(token=token)
    code = (
        "from accounts.customers import api_keys; from accounts.models import *;"
        "api_keys.revoke(ApiKey.objects.get(customer__name='Tiny'))"
    )
    modelyard.installation.manage("shell", "-c", code)
    wait_until(
        lambda: modelyard.predict(token=token).status_code == 401,
        what="the revocation",
    )

    assert statuses == [200] * 7 + [429] * 2
    assert refused.json()["error"]["code"] == "QUOTA_EXCEEDED"
    assert int(refused.headers["Retry-After"]) > 0


def test_pages_of_the_site_answer(modelyard, admin):
    for path in ("/", "/docs/", "/docs/redoc/", "/docs/errors", "/api/schema/"):
        response = modelyard.client.get(path)
        assert response.status_code == 200, path
    for path in (
        "/admin/",
        "/admin/registry/registeredmodel/",
        "/admin/registry/modelversion/",
        "/admin/registry/route/",
        "/admin/accounts/customer/",
        "/admin/accounts/apikey/",
        "/admin/accounts/plan/",
        "/admin/inference/predictionjob/",
        "/admin/inference/engine/",
    ):
        response = admin.get(path)
        assert response.status_code == 200, path


def test_traffic_reaches_the_ledger_and_the_usage_endpoint(modelyard):
    modelyard.predict()

    def counted():
        response = modelyard.client.get("/api/v1/usage", headers=modelyard.headers())
        assert response.status_code == 200, response.text
        return sum(bucket["requests"] for bucket in response.json()["data"])

    # The plan of this key allows 20 requests a second.
    assert wait_until(counted, what="usage", pause_s=0.2) > 0


def test_metrics_are_on_the_operator_port_only(modelyard):
    inside = httpx.get(modelyard.demo["metrics_url"])
    outside = modelyard.client.get("/metrics")

    assert inside.status_code == 200
    assert "breast-cancer" in inside.text
    assert outside.status_code == 404


def test_internal_paths_are_never_relayed(modelyard):
    response = modelyard.client.post("/internal/leases", json={})

    assert response.status_code == 404


def test_readiness_names_nothing_in_public(modelyard):
    response = modelyard.client.get("/readyz")

    assert response.status_code == 200
    assert len(response.text) < 50

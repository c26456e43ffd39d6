"""Test the chart as Helm renders it, against schemas of Kubernetes."""

import copy
import importlib.util
import json
import re
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands

from inference.installation.home import Home
from tests.deploy import pod_security
from tests.deploy.chart import (
    CHART,
    PRODUCTION,
    ROOT,
    VALUES,
    containers,
    environment,
    only,
    pod_specs,
    render,
    texts,
)

OLDEST_KUBERNETES = "1.30"
# Those that the chart sets itself, and those that belong into the Secret.
SET_BY_THE_CHART = {
    *("MODELYARD_HOME", "MODELYARD_HOST", "MODELYARD_PORT", "MODELYARD_PROCESS"),
    *("MODELYARD_OPERATOR_HOST", "MODELYARD_OPERATOR_PORT", "MODELYARD_GRPC_PORT"),
    *("MODELYARD_GRPC_CERTIFICATE_FILE", "MODELYARD_GRPC_KEY_FILE"),
    *("MODELYARD_GRPC_CLIENT_CA_FILE", "MODELYARD_PUBLIC_URL", "MODELYARD_DEVICES"),
    *("MODELYARD_ENGINE_DEVICE", "MODELYARD_GATEWAYS", "MODELYARD_SITE_WORKERS"),
    *("MODELYARD_TRUSTED_PROXIES", "MODELYARD_NEEDS_VOLUME"),
}


@pytest.fixture(params=VALUES, ids=str)
def objects(request):
    return render(VALUES[request.param])


def test_kubernetes_accepts_everything(objects):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")

    for version in (OLDEST_KUBERNETES, kubernetes_validate.latest_version()):
        for each in objects:
            # The schema of ServiceMonitor comes with the Prometheus operator.
            if each["kind"] != "ServiceMonitor":
                kubernetes_validate.validate(each, version, strict=True)


def test_helm_finds_nothing_to_mend():
    helm = pytest.importorskip("helm_python")

    report = helm.lint(CHART, PRODUCTION, strict=True)

    assert report["errors"] == []
    assert {each["error"] for each in report["messages"]} <= {"icon is recommended"}


def test_all_pods_keep_the_restricted_standard(objects):
    found = {
        name: pod_security.violations(it) for name, it in pod_specs(objects).items()
    }

    assert set(found) >= {"modelyard", "modelyard-ready"} or "yard" in found
    assert not any(found.values()), found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda spec: spec.update(hostNetwork=True), "hostNetwork"),
        (
            lambda spec: spec["volumes"].append(
                {"name": "x", "hostPath": {"path": "/"}}
            ),
            "volume x",
        ),
        (lambda spec: spec["securityContext"].pop("seccompProfile"), "seccomp"),
        (
            lambda spec: spec["containers"][0]["securityContext"].update(runAsUser=0),
            "gateway: root",
        ),
        (
            lambda spec: spec["initContainers"][1]["securityContext"].pop(
                "capabilities"
            ),
            "host: capabilities",
        ),
    ],
)
def test_the_check_of_the_standard_sees_what_breaks_it(change, named):
    spec = copy.deepcopy(pod_specs(render())["modelyard"])

    change(spec)

    assert any(named in each for each in pod_security.violations(spec))


def test_all_containers_have_a_read_only_root_and_bounds(objects):
    for spec in pod_specs(objects).values():
        assert spec["automountServiceAccountToken"] is False
        # Its variables would replace settings: MODELYARD_PORT=tcp://…
        assert spec["enableServiceLinks"] is False
        for container in containers(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "memory" in container["resources"]["limits"]


def test_each_volume_is_mounted_and_each_mount_has_a_volume(objects):
    for spec in pod_specs(objects).values():
        volumes = [each["name"] for each in spec.get("volumes", [])]
        mounts = [
            mount["name"]
            for container in containers(spec)
            for mount in container.get("volumeMounts", [])
        ]
        assert len(volumes) == len(set(volumes))
        assert set(volumes) == set(mounts)


def test_everything_that_selects_selects_the_pod(objects):
    [pod] = [each for each in objects if each["kind"] == "StatefulSet"]
    template = pod["spec"]["template"]
    ports = {
        port["name"]
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
    }
    home = template["metadata"]["labels"].items()
    services = [each for each in objects if each["kind"] == "Service"]

    for each in services:
        assert each["spec"]["selector"].items() <= home
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
    assert pod["spec"]["serviceName"] in {each["metadata"]["name"] for each in services}
    assert pod["spec"]["selector"]["matchLabels"].items() <= home
    for each in objects:
        name = each["metadata"]["name"]
        if each["kind"] == "PodDisruptionBudget":
            assert each["spec"]["selector"]["matchLabels"].items() <= home
        elif each["kind"] == "NetworkPolicy" and not name.endswith("-migrate"):
            assert each["spec"]["podSelector"]["matchLabels"].items() <= home
            for rule in each["spec"]["ingress"]:
                assert {port["port"] for port in rule["ports"]} <= ports
        elif each["kind"] == "ServiceMonitor":
            wanted = each["spec"]["selector"]["matchLabels"].items()
            [service] = [
                it for it in services if wanted <= it["metadata"]["labels"].items()
            ]
            assert (
                each["spec"]["endpoints"][0]["port"]
                == service["spec"]["ports"][0]["name"]
            )
        elif each["kind"] == "Ingress":
            for path in each["spec"]["rules"][0]["http"]["paths"]:
                backend = path["backend"]["service"]
                [service] = [
                    it for it in services if it["metadata"]["name"] == backend["name"]
                ]
                assert backend["port"]["name"] in {
                    port["name"] for port in service["spec"]["ports"]
                }


def test_only_operators_reach_the_operators_port():
    policy = only(render(), "NetworkPolicy")

    public, operators = policy["spec"]["ingress"]

    assert [port["port"] for port in public["ports"]] == ["http", "grpc"]
    assert [port["port"] for port in operators["ports"]] == ["operators"]
    assert operators["from"]
    # Not even if nobody is named.
    [public] = only(render({"networkPolicy": {"operators": []}}), "NetworkPolicy")[
        "spec"
    ]["ingress"]
    assert [port["port"] for port in public["ports"]] == ["http", "grpc"]


def test_gateways_and_engines_get_no_secret():
    spec = pod_specs(render(PRODUCTION))["modelyard"]

    holders = {
        container["name"]
        for container in containers(spec)
        if any(mount["name"] == "secrets" for mount in container["volumeMounts"])
        or None in environment(container).values()
        or "DATABASE_URL_FILE" in environment(container)
    }

    assert holders == {"internal", "site", "controller", "worker", "beat"}


def test_a_database_elsewhere_is_migrated_before_the_pods_change():
    objects = render(VALUES["a database elsewhere"])
    job = only(objects, "Job", "modelyard-migrate")

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    # Nothing that it needs may be an object that is made after it.
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "default"
    assert "migrate" not in {
        each["name"] for each in pod_specs(objects)["modelyard"]["initContainers"]
    }


@pytest.mark.parametrize("values", ["defaults", "a secret without a database"])
def test_a_database_in_the_volume_is_migrated_by_the_pod(values):
    objects = render(VALUES[values])
    first, *others = pod_specs(objects)["modelyard"]["initContainers"]

    assert not [each for each in objects if each["kind"] == "Job"]
    assert first["command"] == ["modelyard", "migrate", "--noinput"]
    # Settings open SQLite only for people's commands, and those have no name.
    assert "MODELYARD_PROCESS" not in environment(first)
    assert "restartPolicy" not in first
    assert {each["restartPolicy"] for each in others} == {"Always"}


@pytest.mark.parametrize("values", ["defaults", "production"])
def test_gateways_and_engines_mount_parts_of_the_home_that_another_made(values):
    spec = pod_specs(render(VALUES[values]))["modelyard"]
    first = spec["initContainers"][0]
    homes = {
        each["name"]: {
            mount["mountPath"].removeprefix("/var/lib/modelyard"): mount.get("readOnly")
            for mount in each["volumeMounts"]
            if mount["name"] == "home"
        }
        for each in containers(spec)
    }

    assert "restartPolicy" not in first
    assert homes[first["name"]] == homes["site"] == {"": None}
    # Neither the secret key nor a database in the home, nor uploads and jobs.
    assert set(homes["gateway"]) == {"/run", "/spool", "/relayed", "/snapshot"}
    assert homes["gateway"]["/snapshot"] is True
    assert homes["host"]["/artifacts"] is homes["host"]["/environments"] is True
    for name in ("gateway", "host"):
        for part in homes[name]:
            assert part[1:] in home_folders()


def home_folders():
    """Return the folders that a home has once it is prepared."""
    with tempfile.TemporaryDirectory() as name:
        home = Home(Path(name) / "home")
        home.prepare()
        return {path.name for path in home.root.iterdir()}


def test_a_process_that_still_starts_ends_when_it_shall():
    # Process 1 ignores signals that it does not handle yet.
    assert pod_specs(render())["modelyard"]["shareProcessNamespace"] is True


def test_probes_run_modules_that_exist():
    spec = pod_specs(render())["modelyard"]
    probed = {
        each["name"]: each["livenessProbe"]["exec"]["command"]
        for each in containers(spec)
        if "livenessProbe" in each
    }

    # The controller would be started again while only the database is away.
    served = {"gateway", "gateway-2", "internal", "site"}
    assert set(probed) == served | {"host", "worker", "beat"}
    for name, (python, flag, module, process) in probed.items():
        assert (python, flag, process) == ("python", "-m", name.removesuffix("-2"))
        assert importlib.util.find_spec(module)


def test_the_values_of_the_guide_are_accepted():
    guide = (ROOT / "docs/kubernetes.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)

    assert len(blocks) == 2
    for block in blocks:
        assert render(yaml.safe_load(block))


def test_gpus_go_to_the_engine_host_only():
    spec = pod_specs(render(VALUES["gpus"]))["modelyard"]

    found = {
        each["name"]: each["resources"]["limits"]["nvidia.com/gpu"]
        for each in containers(spec)
        if "nvidia.com/gpu" in each["resources"]["limits"]
    }
    [host] = [each for each in containers(spec) if each["name"] == "host"]

    assert found == {"host": "2"}
    assert host["command"][-1] == "cuda:0,cuda:1"
    assert host["image"] == "modelyard-engine:0.1.0-cuda"
    assert spec["runtimeClassName"] == "nvidia"


def test_the_home_outlives_the_release():
    claim = only(render(), "PersistentVolumeClaim", "modelyard-home")

    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"gateway": 2}, "gateway"),
        ({"gateways": 0}, "gateways"),
        ({"gateways": "2"}, "gateways"),
        ({"settings": {"MODELYARD_MAX_TIMOUT_S": "60"}}, "MODELYARD_MAX_TIMOUT_S"),
        (
            {"settings": {"MODELYARD_MAX_BODY_BYTES": 4000000}},
            "MODELYARD_MAX_BODY_BYTES",
        ),
        ({"settings": {"MODELYARD_PORT": "9000"}}, "MODELYARD_PORT"),
        ({"settings": {"DATABASE_URL": "postgres://me:secret@db/x"}}, "DATABASE_URL"),
        ({"settings": {"modelyard": "x"}}, "modelyard"),
        ({"publicUrl": "models.example.com"}, "publicUrl"),
        ({"publicUrl": "https://models.example.com/path"}, "publicUrl"),
        ({"publicUrl": "https://models.example.com"}, "trustedProxies"),
        ({"ingress": {"enabled": True}}, "publicUrl"),
        ({"trustedProxies": ["ingress-nginx"]}, "trustedProxies"),
        ({"persistence": {"accessMode": "ReadWriteMany"}}, "accessMode"),
        ({"persistence": {"size": "lots"}}, "size"),
        ({"podDisruptionBudget": {"maxUnavailable": 2}}, "maxUnavailable"),
        ({"grpc": {"clientCertificates": True}}, "tlsSecret"),
        (
            {
                "publicUrl": "http://x",
                "trustedProxies": ["10.0.0.1"],
                "grpc": {"enabled": False},
                "ingress": {"enabled": True, "grpc": {"enabled": True}},
            },
            "grpc",
        ),
        ({"resources": {"hosts": {}}}, "hosts"),
        ({"resources": {"host": {"limits": {"memory": "8 GB"}}}}, "memory"),
        ({"replicas": 2}, "replicas"),
    ],
)
def test_bad_values_are_refused_with_their_name(values, word):
    helm = pytest.importorskip("helm_python")

    with pytest.raises(helm.HelmValuesError, match=word):
        render(values)


def test_each_value_is_explained_by_the_schema():
    """Compare the keys of values.yaml and of its schema, at all depths."""

    def keys(values, prefix=""):
        for name, value in values.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{name}.")

    def known(schema, prefix=""):
        for name, each in schema.get("properties", {}).items():
            yield f"{prefix}{name}"
            yield from known(each, f"{prefix}{name}.")

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    # Helm adds `global`; these hold what users name.
    free = ("settings.", "resources.")

    assert {it for it in keys(values) if not it.startswith(free)} == {
        it for it in known(schema) if it != "global" and not it.startswith(free)
    }


def test_the_schema_knows_all_settings():
    documented = re.findall(
        r"^\| (`.+?`) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    )
    names = set(re.findall(r"MODELYARD_[A-Z_]+", " ".join(documented)))
    schema = json.loads((CHART / "values.schema.json").read_text())
    rules = schema["properties"]["settings"]["propertyNames"]["allOf"]

    assert set(rules[-1]["anyOf"][1]["enum"]) == names - SET_BY_THE_CHART


def test_the_chart_has_the_version_of_its_application():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert chart["appVersion"] == project["version"]
    assert OLDEST_KUBERNETES in chart["kubeVersion"]


@pytest.mark.parametrize("upgrade", [False, True])
@pytest.mark.parametrize("values", VALUES)
def test_the_notes_name_commands_and_pods_that_exist(values, upgrade):
    notes = texts(VALUES[values], upgrade=upgrade)["modelyard/templates/NOTES.txt"]
    objects = render(VALUES[values])
    [pod] = [each for each in objects if each["kind"] == "StatefulSet"]
    commands = re.findall(r"exec (?:-it )?(\S+) -c (\S+) -- modelyard (\w+)", notes)

    assert commands
    for name, container, command in commands:
        assert name == f"{pod['metadata']['name']}-0"
        assert container in {
            each["name"] for each in containers(pod["spec"]["template"]["spec"])
        }
        assert command in {*get_commands(), "check"}
    assert "<no value>" not in notes

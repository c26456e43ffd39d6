"""Render deploy/helm/modelyard with Helm itself, for several values."""

import functools
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "modelyard"

PRODUCTION = {
    "publicUrl": "https://models.example.com",
    "trustedProxies": ["10.244.0.0/16", "fd00::/64"],
    "secrets": {
        "existingSecret": "modelyard",
        "environment": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
    },
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "tlsSecret": "models-tls",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "1g"},
        "grpc": {
            "enabled": True,
            "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"},
        },
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
VALUES = {
    "defaults": {},
    "production": PRODUCTION,
    "a database elsewhere": {
        "secrets": {"existingSecret": "mine", "files": ["DATABASE_URL"]}
    },
    "a secret without a database": {
        "secrets": {"existingSecret": "mine", "files": ["SECRET_KEY"]}
    },
    "gpus": {
        "engine": {"gpus": 2, "tag": "0.1.0-cuda"},
        "runtimeClassName": "nvidia",
        "nodeSelector": {"accelerator": "h200"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    },
    "without what clusters may lack": {
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "grpc": {"enabled": False},
        "persistence": {"existingClaim": "claim"},
    },
    "everything named": {
        "fullnameOverride": "yard",
        "nameOverride": "yard",
        "image": {
            "registry": "registry.example.com:5000/ml",
            "tag": "1.2.3",
            "pullSecrets": ["pull"],
        },
        "gateways": 1,
        "siteWorkers": 2,
        "settings": {
            "MODELYARD_MAX_TIMEOUT_S": "60",
            "HTTPS_PROXY": "http://proxy:3128",
        },
        "grpc": {"tlsSecret": "grpc-tls", "clientCertificates": True},
        "persistence": {"storageClass": "fast", "accessMode": "ReadWriteOncePod"},
        "networkPolicy": {
            "clients": [{"namespaceSelector": {}}],
            "operators": [],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "serviceAccount": {"annotations": {"a": "b"}},
        "podLabels": {"team": "ml"},
        "podAnnotations": {"a": "b"},
    },
}


def render(values=None, *, chart=CHART):
    """Return all objects, after a check of the values; raises HelmValuesError."""
    return [
        each
        for name, text in texts(values, chart=chart).items()
        if name.endswith(".yaml")
        for each in yaml.load_all(text, yaml.CSafeLoader)
        if each
    ]


def texts(values=None, *, chart=CHART, upgrade=False):
    """Return what the templates make, by their names; raises HelmValuesError."""
    return _texts(json.dumps(values or {}), chart, upgrade)


@functools.cache
def _texts(values, chart, upgrade):
    helm = pytest.importorskip("helm_python", reason="needs the extra `chart`")
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(json.loads(values))
        return loaded.render(
            json.loads(values),
            name="modelyard",
            namespace="models",
            is_install=not upgrade,
            is_upgrade=upgrade,
        )


def only(objects, kind, name="modelyard"):
    [found] = [
        each
        for each in objects
        if each["kind"] == kind and each["metadata"]["name"] == name
    ]
    return found


def pod_specs(objects):
    """Return the specifications of all Pods by the name of what makes them."""
    found = {}
    for each in objects:
        if each["kind"] == "Pod":
            found[each["metadata"]["name"]] = each["spec"]
        elif each["kind"] in ("StatefulSet", "Job"):
            found[each["metadata"]["name"]] = each["spec"]["template"]["spec"]
    return found


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container):
    """Return the values of variables; None for those from a Secret."""
    return {each["name"]: each.get("value") for each in container.get("env", [])}

"""Compare Pods with the Pod Security Standard `restricted` of Kubernetes.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from tests.deploy.chart import containers

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
_PROFILES = ("RuntimeDefault", "Localhost")


def violations(spec):
    """Return what the standard forbids in the specification of a Pod."""
    shared = spec.get("securityContext", {})
    found = [
        name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)
    ] + [
        f"volume {volume['name']}"
        for volume in spec.get("volumes", [])
        if not set(volume) - {"name"} <= _VOLUMES
    ]
    if shared.get("sysctls") or shared.get("seLinuxOptions"):
        found.append("sysctls or SELinux options")
    for container in containers(spec):
        own = container.get("securityContext", {})
        both = {**shared, **own}
        capabilities = own.get("capabilities", {})
        rules = {
            "privileged": not own.get("privileged"),
            "privilege escalation": own.get("allowPrivilegeEscalation") is False,
            "root": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "seccomp": both.get("seccompProfile", {}).get("type") in _PROFILES,
            "capabilities": "ALL" in capabilities.get("drop", [])
            and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "host port": not any("hostPort" in p for p in container.get("ports", [])),
            "proc mount": own.get("procMount", "Default") == "Default",
        }
        found += [
            f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept
        ]
    return found

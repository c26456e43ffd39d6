"""Try dashboards and alerts on a running installation, with a real Prometheus.

    .venv/bin/python deploy/monitoring/try.py --target 127.0.0.1:8001

It starts Prometheus for a while, asks every query of the dashboards, and lists those
without data and the alerts that fire. Make some calls meanwhile. With `--expect NAME`
it waits for an alert instead, for example after you killed an engine. Nothing waits
here as long as alert_rules.yml says: an alert fires after two seconds.
"""

import argparse
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# What people choose on a dashboard; Grafana's "All".
_CHOICE = re.compile(r"\$\w+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="127.0.0.1:8001", help="operators' port")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--expect", action="append", default=[], help="an alert")
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("Prometheus is missing: apt-get install prometheus")
    with prometheus(options.target) as url:
        deadline = time.monotonic() + options.seconds
        missing: list[str] = []
        while time.monotonic() < deadline:
            time.sleep(2)
            firing = sorted(alerts(url))
            missing = without_data(url)
            if options.expect and set(options.expect) <= set(firing):
                break
            if not options.expect and not missing:
                break
        print("alerts that fire:", ", ".join(firing) or "none")
        if options.expect:
            return int(not set(options.expect) <= set(firing))
        print(f"queries without data: {len(missing)}")
        for line in missing:
            print(f"  {line}")
        return int(bool(missing))


@contextlib.contextmanager
def prometheus(target: str) -> Iterator[str]:
    """Run Prometheus with the files of this folder; yield its URL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alerts_text = re.sub(
            r"for: \w+", "for: 2s", (HERE / "alert_rules.yml").read_text()
        )
        (folder / "alert_rules.yml").write_text(alerts_text)
        shutil.copy(HERE / "rules.yml", folder)
        config = (HERE / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:8001", target).replace("15s", "2s")
        (folder / "prometheus.yml").write_text(config)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ]
        )
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait()


def without_data(url: str) -> list[str]:
    """Return the panels and queries of all dashboards that have no data."""
    found = []
    for path in sorted((HERE / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                query = _CHOICE.sub(".*", target["expr"])
                if not ask(url, query):
                    found.append(f"{path.stem}: {panel['title']}: {target['expr']}")
    return found


def alerts(url: str) -> set[str]:
    return {
        series["metric"]["alertname"]
        for series in ask(url, 'ALERTS{alertstate="firing"}')
    }


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """Return the series of a query; none while Prometheus starts."""
    asked = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{asked}") as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return []
        sys.exit(f"{query}: {error.read().decode()}")
    except urllib.error.URLError:
        return []
    return result


if __name__ == "__main__":
    sys.exit(main())

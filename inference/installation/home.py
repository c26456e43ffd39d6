"""Name the files and folders of one installation, for gateway, engine and Django."""

import contextlib
import hashlib
import os
import secrets
import tempfile
from pathlib import Path

import msgspec

from inference.installation import modes

# A Unix socket's path must fit sockaddr_un.sun_path: on Linux 108 bytes including the
# final NUL. The longest names in `run` are those of engine sockets.
_LONGEST_RUN_DIR = 70


def engine_of_device(device: str) -> str:
    """Name the engine that a device's programs share; for `cuda:0` it is `cuda-0`."""
    return device.replace(":", "-")


class Home(msgspec.Struct, frozen=True):
    """The layout of MODELYARD_HOME."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "db.sqlite3"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def artifacts(self) -> Path:
        """Model artifacts: one folder per digest, written once."""
        return self.root / "artifacts"

    @property
    def environments(self) -> Path:
        """Python environments of models: one folder per digest, with a mark when ready.

        Not renamed into place as artifacts are, because their programs hold its path.
        """
        return self.root / "environments"

    @property
    def snapshot(self) -> Path:
        return self.root / "snapshot" / "current.snapshot"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def engine(self) -> Path:
        """Versions that each engine should load, so that it can restart alone."""
        return self.root / "engine"

    @property
    def host_plan(self) -> Path:
        """The engine processes of this machine, so that its host can restart alone."""
        return self.engine / "plan.json"

    @property
    def host_deaths(self) -> Path:
        """The last deaths of this machine's engine processes."""
        return self.engine / "deaths.json"

    @property
    def host_report(self) -> Path:
        """This machine's engine processes, as its host last saw them."""
        return self.run / "host.json"

    def engine_notes(self, name: str) -> Path:
        """What an engine process does now; `name` is that of its socket."""
        return self.run / f"engine-{name}.notes"

    def engine_log(self, name: str) -> Path:
        return self.logs / f"engine-{name}.log"

    def scratch(self, name: str) -> Path:
        """The folder in which an engine process may write."""
        return self.root / "scratch" / name

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def uploads(self) -> Path:
        """Files that customers uploaded for later requests, by upload id."""
        return self.root / "uploads"

    @property
    def relayed(self) -> Path:
        """Bodies that wait on their way between clients and the site."""
        return self.root / "relayed"

    @property
    def demo(self) -> Path:
        return self.root / "demo.json"

    @property
    def secret_key(self) -> Path:
        return self.root / "secret_key"

    @property
    def run(self) -> Path:
        """Folder of the sockets; in the system's temporary folder if too deep here."""
        path = self.root / "run"
        if len(os.fsencode(path)) <= _LONGEST_RUN_DIR:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{digest}"

    @property
    def site_socket(self) -> Path:
        """Socket on which the site answers what gateways relay from clients."""
        return self.run / "site.sock"

    @property
    def internal_socket(self) -> Path:
        """Socket of the site for this installation's own calls."""
        return self.run / "internal.sock"

    @property
    def shared_counts(self) -> Path:
        """Counters that the gateways of this machine share."""
        return self.run / "counts"

    @property
    def controller(self) -> Path:
        """Identity of this machine's last controller; locked while it runs."""
        return self.run / "controller"

    @property
    def ledger_report(self) -> Path:
        """The state of the ledger, as this machine's controller last saw it."""
        return self.run / "ledger.json"

    @property
    def facts(self) -> Path:
        """What database and broker say, for metrics."""
        return self.run / "facts.json"

    @property
    def own_reports(self) -> Path:
        """What processes without a port count of themselves, a file each."""
        return self.run / "reports"

    @property
    def shadow_examples(self) -> Path:
        """Calls that shadows answered otherwise, until the controller has read them."""
        return self.run / "examples"

    def sign_of_life(self, process: str) -> Path:
        """The file that a process without a port touches every few seconds."""
        return self.own_reports / f"{process}.lock"

    def gateway_socket(self, name: str, boot_id: str) -> Path:
        """Return a gateway's control socket; `name` is a process like `gateway-2`."""
        return self.run / f"{name}.{boot_id}.sock"

    def engine_socket(self, name: str) -> Path:
        """Return an engine's socket; `name` is its device, like `cpu` or `cuda-0`."""
        return self.run / f"engine-{name}.sock"

    @property
    def home_id(self) -> Path:
        """The id of this home, there as soon as it has served."""
        return self.root / "home_id"

    def identity(self) -> str:
        """Return this home's id, made once and kept when the folder moves."""
        path = self.home_id
        try:
            return path.read_text()
        except FileNotFoundError:
            # Not by process id: in containers, several processes have the same.
            partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
            partial.write_text(secrets.token_hex(16))
        with contextlib.suppress(FileExistsError):
            # Only one of several processes can make the link; the others read its id.
            os.link(partial, path)
        partial.unlink()
        return path.read_text()

    @property
    def static(self) -> Path:
        return self.root / "static"

    def prepare(self) -> None:
        """Create every folder, closed to others; close existing ones too.

        Raises OSError, also for a folder that all users share.
        """
        for path in (self.root, self.run):
            mode = 0o770 if modes.is_shared(path.parent) else 0o700
            path.mkdir(parents=True, exist_ok=True, mode=mode)
            modes.close_to_others(path)
        for path in (
            self.mlflow,
            self.artifacts,
            self.environments,
            self.snapshot.parent,
            self.spool,
            self.engine,
            self.broker,
            self.cache,
            self.logs,
            self.jobs,
            self.uploads,
            self.static,
            self.relayed,
            self.root / "scratch",
        ):
            path.mkdir(parents=True, exist_ok=True)
        # Only this tells of a folder that was there already. Each process has a socket,
        # a lock or a report in it. It fails with EROFS or EACCES.
        with tempfile.TemporaryFile(dir=self.run):
            pass

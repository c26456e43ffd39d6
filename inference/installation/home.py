"""Where one installation keeps its files. Pure: gateway, engine and Django share it."""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

import msgspec

# A Unix socket's path must fit sockaddr_un.sun_path: 108 bytes on Linux with the
# final NUL. Engine sockets are the longest names below `run`.
_LONGEST_RUN_DIR = 70


class Home(msgspec.Struct, frozen=True):
    """The layout below MODELYARD_HOME."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "db.sqlite3"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def artifacts(self) -> Path:
        """Model artifacts, one folder per digest, written once."""
        return self.root / "artifacts"

    @property
    def snapshot(self) -> Path:
        return self.root / "snapshot" / "current.snapshot"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def engine(self) -> Path:
        """Desired state of the engines, so that they come back on their own."""
        return self.root / "engine"

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
        """Files that customers sent first, by the id of their upload."""
        return self.root / "uploads"

    @property
    def relayed(self) -> Path:
        """What waits on its way between clients and the site."""
        return self.root / "relayed"

    @property
    def demo(self) -> Path:
        return self.root / "demo.json"

    @property
    def secret_key(self) -> Path:
        return self.root / "secret_key"

    @property
    def run(self) -> Path:
        """Folder of the sockets; beside the system's temporary files if too deep."""
        path = self.root / "run"
        if len(os.fsencode(path)) <= _LONGEST_RUN_DIR:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{digest}"

    @property
    def site_socket(self) -> Path:
        """Socket of the site for people and their programs, called by gateways."""
        return self.run / "site.sock"

    @property
    def internal_socket(self) -> Path:
        """Socket of the site for this installation's own calls."""
        return self.run / "internal.sock"

    @property
    def shared_counts(self) -> Path:
        """What the gateways of this machine count together."""
        return self.run / "counts"

    @property
    def controller(self) -> Path:
        """Who the last controller of this machine was; locked while it lives."""
        return self.run / "controller"

    @property
    def ledger_report(self) -> Path:
        """How far this machine's controller found the ledger."""
        return self.run / "ledger.json"

    def gateway_socket(self, name: str, boot_id: str) -> Path:
        """Control socket of one gateway; `name` is its process, e.g. `gateway-2`."""
        return self.run / f"{name}.{boot_id}.sock"

    def engine_socket(self, name: str) -> Path:
        """Socket of one engine; `name` is its device, e.g. `cpu` or `cuda-0`."""
        return self.run / f"engine-{name}.sock"

    def identity(self) -> str:
        """Return the id that this home keeps wherever it is moved to; made once."""
        path = self.root / "home_id"
        try:
            return path.read_text()
        except FileNotFoundError:
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(secrets.token_hex(16))
        with contextlib.suppress(FileExistsError):
            # Of several processes one is first, and the others read what it made.
            os.link(partial, path)
        partial.unlink()
        return path.read_text()

    @property
    def static(self) -> Path:
        return self.root / "static"

    def prepare(self) -> None:
        """Create every folder; all are private to the user, also those made before.

        Raises OSError, also for a folder that all users share.
        """
        for path in (self.root, self.run):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            mode = path.stat().st_mode
            if mode & stat.S_ISVTX:
                raise PermissionError(errno.EPERM, "all users share this folder", path)
            if mode & 0o077:
                path.chmod(0o700)
        for path in (
            self.mlflow,
            self.artifacts,
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
        ):
            path.mkdir(parents=True, exist_ok=True)

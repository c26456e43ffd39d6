"""Look up keys and models in a snapshot, and follow its changes.

Entries are built when a call first needs them, and a change touches only the entries
that it names: with 100,000 keys and 1,000 models a change must not stop the event loop.
"""

from collections.abc import Callable

from accounts.admission.admission import Admission
from accounts.admission.admissions import Admissions
from accounts.admission.back_off import BackOffs
from accounts.admission.limits import KeyProblem
from inference.engine.wire.messages import VersionKey
from inference.snapshot.contents import CallableModel, Contents, Delta, Snapshot, whole
from inference.snapshot.keys import KeyEntry
from inference.snapshot.targets import ModelEntry, Target

_MAX_TOKENS = 10_000


class MissedDelta(Exception):
    """A delta does not build on these tables: the whole snapshot must be read."""


class Tables:
    """Look-ups of keys and models; `take` may be called between any two of them."""

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        *,
        make_admission: Callable[..., Admission] = Admission,
        back_offs: BackOffs | None = None,
    ) -> None:
        self.admissions = Admissions(make_admission)
        self.back_offs = back_offs
        self.models: dict[str, ModelEntry] = {}
        self._contents = Contents()
        # A whole snapshot of which only some parts have arrived, with its models.
        self._coming: tuple[Contents, dict[str, ModelEntry]] | None = None
        self._next_part = 0
        self._entries: dict[bytes, KeyEntry] = {}
        # Entries from before the last whole snapshot: reused if their key is the same.
        self._former: dict[bytes, KeyEntry] = {}
        # Valid tokens: checking one again costs more than all the rest of a look-up.
        self._tokens: dict[bytes, KeyEntry] = {}
        if snapshot is not None:
            self.replace(snapshot)

    @property
    def sequence(self) -> int:
        """Number of the last change taken over; 0 before any snapshot."""
        return self._contents.sequence

    @property
    def published_at(self) -> float:
        return self._contents.published_at

    @property
    def site_default_model(self) -> str | None:
        return self._contents.site_default_model

    @property
    def engines(self) -> dict[str, str]:
        """Addresses of the engines by name."""
        return self._contents.engines

    def find_target(self, key: VersionKey) -> Target | None:
        """Find a version by its number."""
        entry = self.models.get(key.model)
        return None if entry is None else entry.named(str(key.version))

    def is_broken(self, key: VersionKey) -> bool:
        """Return whether a version cannot answer until somebody acts."""
        entry = self.models.get(key.model)
        return entry is not None and str(key.version) in entry.model.broken

    def models_by_name(self) -> list[CallableModel]:
        return [self.models[name].model for name in sorted(self.models)]

    def as_snapshot(self) -> Snapshot:
        """Return all that was taken over as one Snapshot."""
        return self._contents.as_snapshot()

    def replace(self, snapshot: Snapshot) -> None:
        """Take over a whole snapshot; keep the entries that did not change."""
        self.take(whole(snapshot))

    def take(self, delta: Delta) -> None:
        """Take over one part of a delta; raise MissedDelta if earlier ones are missing.

        A whole snapshot counts when its last part has arrived. Any other delta counts
        part by part: a revoked key does not wait for the rest.
        """
        is_whole = delta.base == 0
        if is_whole and delta.part == 0:
            self._coming, self._next_part = (Contents(), {}), 0
        elif not is_whole and delta.part == 0:
            self._coming, self._next_part = None, 0
        if (
            delta.part != self._next_part
            or is_whole != (self._coming is not None)
            or delta.base not in (0, self._contents.sequence)
        ):
            self._coming, self._next_part = None, -1
            raise MissedDelta(f"{delta.sequence} builds on {delta.base}")
        for customer in delta.customers:
            self.admissions.replace_limits(customer.customer_id, customer.limits)
        contents, models = self._coming or (self._contents, self.models)
        contents.take(delta)
        for model in delta.models:
            entry = self._model(model, self.models.get(model.name))
            models[model.name] = entry
            # Keep one object, not two equal ones.
            contents.models[model.name] = entry.model
        for name in delta.gone_models:
            models.pop(name, None)
        if is_whole:
            if delta.last:
                self._contents, self.models = contents, models
                self._entries, self._former = {}, self._entries
                self._tokens, self._coming = {}, None
        else:
            for key in delta.keys:
                self._forget(key.digest)
            for digest in delta.gone_keys:
                self._forget(digest)
        self._next_part = -1 if delta.last else delta.part + 1

    def _forget(self, digest: bytes) -> None:
        """Forget the entry and token of a key that changed."""
        self._former.pop(digest, None)
        entry = self._entries.pop(digest, None)
        if entry is not None and entry.token is not None:
            self._tokens.pop(entry.token, None)

    def known_token(self, token: bytes) -> KeyEntry | None:
        """Return the key of a remembered token."""
        return self._tokens.get(token)

    def remember_token(self, token: bytes, entry: KeyEntry) -> None:
        """Remember a valid token until its key changes."""
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens.clear()
        # A key has only one token, because its digest is the token's digest.
        entry.token = token
        self._tokens[token] = entry

    def find_key(self, digest: bytes) -> KeyEntry | None:
        """Find a key by the SHA-256 of its token.

        A dictionary of digests needs no comparison in constant time: to steer a digest
        towards a stored one, an attacker would have to break SHA-256.
        """
        entry = self._entries.get(digest)
        if entry is None:
            key = self._contents.keys.get(digest)
            limits = (
                None if key is None else self._contents.customers.get(key.customer_id)
            )
            if key is None or limits is None:
                return None
            entry = self._former.pop(digest, None)
            if entry is not None and entry.key == key:
                self.admissions.replace_limits(key.customer_id, limits)
                self._entries[digest] = entry
                return entry
            admission = self.admissions.find(
                customer_id=key.customer_id,
                limits=limits,
                key_id=key.key_id,
                quota_key_id=key.quota_key_id,
                key_limits=key.limits,
            )
            back_off = None
            if self.back_offs is not None:
                back_off = self.back_offs.of_key(key.key_id, admission, key.limits)
            entry = KeyEntry(key, admission, back_off)
            self._entries[digest] = entry
        return entry

    def why_ended(self, digest: bytes) -> KeyProblem | None:
        """Return why a key with this digest has ended; None if it is not known."""
        return self._contents.ended_keys.get(digest)

    def _model(self, model: CallableModel, before: ModelEntry | None) -> ModelEntry:
        if before is not None and before.model == model:
            return before
        return ModelEntry(model, before)

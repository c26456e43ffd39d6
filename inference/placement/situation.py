"""Define what the placement is decided from, and the placement itself."""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.placement.processes import HostPlan

# A device whose memory nobody has measured yet.
UNKNOWN_MEMORY = 1 << 62


class Priority(enum.IntEnum):
    """Who needs a version; where memory lacks, the later ones give way first."""

    ROUTED = 0
    JOB = 1
    PUBLISHED = 2
    # The former default of a route, kept so that going back is instant.
    FORMER = 3


class Holder(NamedTuple):
    """A process of a host, which holds versions."""

    host: str
    process: str


class Place(NamedTuple):
    """One version in one process."""

    holder: Holder
    key: VersionKey


@dataclass(frozen=True, slots=True)
class Machine:
    """A host that runs engine processes."""

    name: str
    # Those that have an engine for programs.
    devices: tuple[str, ...]
    # Memory for models by device; without an entry: not known yet.
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    # Folders of the environments that are built, by their digests.
    environments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that should be loaded."""

    version: VersionToLoad
    priority: Priority
    # Nothing of its artifact is run as code, so it shares the engines of devices.
    is_program: bool
    # Estimated, or measured when it was loaded.
    memory_bytes: int = 0
    # Of a process of its own; 0: no limit.
    memory_limit_bytes: int = 0
    # Its single row takes too long for a process that others share.
    slow: bool = False
    released_at: float = 0.0


@dataclass(frozen=True, slots=True)
class PlacementSituation:
    """All inputs of the decision."""

    hosts: tuple[Machine, ...]
    wanted: tuple[Wanted, ...]
    # The plans of now, by host.
    plans: Mapping[str, HostPlan] = field(default_factory=dict)
    # What the engines of devices hold, which is not in plans.
    holding: Mapping[Holder, AbstractSet[VersionKey]] = field(default_factory=dict)
    ready: AbstractSet[Place] = frozenset()
    # Where versions should be by the decision before; nothing if it is not known.
    seated: AbstractSet[Place] = frozenset()
    # Places that gateways have not named for a while, as `Placement.leaving` asked.
    left: AbstractSet[Place] = frozenset()
    # Memory of versions that are there but not wanted any more.
    unwanted_bytes: Mapping[VersionKey, int] = field(default_factory=dict)
    # Versions that no gateway can name any more.
    releasable: AbstractSet[VersionKey] = frozenset()
    # Places with another artifact, or with code that is trusted no longer.
    outdated: AbstractSet[Place] = frozenset()
    # Processes of one version that a fresh one should replace.
    recycle: AbstractSet[Holder] = frozenset()


class Lacking(NamedTuple):
    """A version that does not fit."""

    key: VersionKey
    needed_bytes: int
    free_bytes: int
    sentence: str
    # A route needs it, so it is loaded all the same.
    is_placed: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """The decision: a plan for each host, and where each version is."""

    plans: Mapping[str, HostPlan]
    # Where each version should be.
    holders: Mapping[VersionKey, frozenset[Holder]]
    # Where versions stay until they are ready elsewhere, or nobody can name them.
    staying: Mapping[VersionKey, frozenset[Holder]]
    # Of these: places that gateways should name no longer, before they end.
    leaving: frozenset[Place]
    lacking: tuple[Lacking, ...]

"""The database rows of all that predictions, jobs and their people need."""

from inference.models.feedback import Feedback, FeedbackSum, FeedbackUse
from inference.models.following import Follow, MailWish, Message, TrustRequest
from inference.models.jobs import JobChunk, JobTotals, JobTurn, PredictionJob
from inference.models.processes import (
    Host,
    ModelEnvironment,
    VersionCondition,
    VersionEvent,
)
from inference.models.rollouts import Rollout, RolloutEvent
from inference.models.serving import (
    ControllerLease,
    DatabaseHome,
    Engine,
    LoadedVersion,
    ServingRoute,
    SnapshotChange,
    SnapshotState,
)
from inference.models.shadows import ShadowExample, ShadowTotals
from inference.models.uploads import Upload

__all__ = [
    "ControllerLease",
    "DatabaseHome",
    "Engine",
    "Feedback",
    "FeedbackSum",
    "FeedbackUse",
    "Follow",
    "Host",
    "JobChunk",
    "JobTotals",
    "JobTurn",
    "LoadedVersion",
    "MailWish",
    "Message",
    "ModelEnvironment",
    "PredictionJob",
    "Rollout",
    "RolloutEvent",
    "ServingRoute",
    "ShadowExample",
    "ShadowTotals",
    "SnapshotChange",
    "SnapshotState",
    "TrustRequest",
    "Upload",
    "VersionCondition",
    "VersionEvent",
]

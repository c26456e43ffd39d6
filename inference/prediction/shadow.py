"""Choose the calls of which a route's shadow gets a copy."""

import random

import msgspec

from inference.engine.wire.tensors import Prediction
from inference.prediction.effects import Answer, ShadowCopy
from inference.prediction.stages import PreparedCall
from inference.snapshot.targets import ShadowTarget

_COPIED = frozenset({"predict", "batch"})


def with_copy(
    answer: Answer, shadow: ShadowTarget, call: PreparedCall, prediction: Prediction
) -> Answer:
    """Add a copy for the shadow to an answer, for the route's share of such calls.

    Only predictions of the default count: no streams, embeddings or explanations, and
    none that the cache or another version answered.
    """
    known = call.known
    if (
        known.call.operation not in _COPIED
        or call.explains
        or call.target.key.version != shadow.default
        or known.cached == b"hit"
        or known.fault
        or random.random() * 100 >= shadow.percent
    ):
        return answer
    copy = ShadowCopy(shadow, call, prediction)
    return msgspec.structs.replace(answer, copy=copy)

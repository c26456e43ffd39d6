"""The signals by which the registry tells other apps of changes, and asks them."""

from typing import NamedTuple

from django.dispatch import Signal

# Sent inside the transaction of every change that gateways must learn of. `models`
# holds the names of the changed models; without it, every model may have changed. `by`
# is the person who made the change; without it, it was the machine.
registry_changed = Signal()
# Asks who called `model`; the first receiver answers with Callers. `using` asks only
# for those who used some of these optional inputs (bits by version); None: for all.
callers_wanted = Signal()


class Callers(NamedTuple):
    """The keys that called a model in the last 30 days."""

    # A customer and the name of its key each: those with the most calls, at most 10.
    named: tuple[str, ...] = ()
    keys: int = 0
    # Only those who used one of the affected optional inputs.
    of_fields: bool = False

    @property
    def sentence(self) -> str:
        if not self.keys:
            did = "used what changes" if self.of_fields else "called the model"
            return f"Nobody {did} in the last 30 days."
        keys = "1 key" if self.keys == 1 else f"{self.keys} keys"
        more = self.keys - len(self.named)
        names = ", ".join(self.named) + (f" and {more} more" if more else "")
        did = "may have used what changes" if self.of_fields else "called the model"
        return f"In the last 30 days {keys} {did}: {names}."


# Sent inside the transaction in which the number `version` of `model` (its name) became
# another version, because the name was deleted in MLflow and registered again.
version_replaced = Signal()
# Sent to have a rollout of `version` started by its route's plan; `why` tells people
# the cause. Receivers raise `registry.routes.RouteError`.
rollout_wanted = Signal()

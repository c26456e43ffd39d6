"""Simulate a site and its gateways, where every message may get lost.

Time, randomness and the network are simulated. The code that decides is the real one,
`accounts.admission` in each gateway and `accounts.quotas.lending` at the site. A run
depends only on its seed, so a seed that fails can be run again.
"""

import functools
import heapq
import itertools
import random
from collections import Counter, defaultdict

from accounts.admission.admission import Admission, Refusal
from accounts.admission.limits import LeaseGrant, Limits, Quota, Recall
from accounts.admission.windows import merged, window_of
from accounts.quotas import lending
from accounts.quotas.lending import Account, Loan

MIDNIGHT = 1_795_219_200.0
TIMEOUT_S = 1.0
CALLS_UNTIL = MIDNIGHT + 60.0
QUIET_UNTIL = CALLS_UNTIL + 30.0
OVERDRAFT_SHARE = 0.05


class Overdrafts:
    """Units that gateways of one machine have overdrawn; outlives each of them."""

    def __init__(self):
        self.cells = []
        self._places = {}

    def lock(self):
        pass

    def unlock(self):
        pass

    def find(self, key, starts, ends, hint=0):
        place = self._places.setdefault((key, starts), len(self.cells))
        if place == len(self.cells):
            self.cells.append(0)
        return place


class Site:
    """Counters and loans as the database keeps them; answers take messages."""

    def __init__(self, world, limit):
        self.world = world
        self.limit = limit
        self.up = True
        self.counted = Counter()
        self.loans = defaultdict(Loan)

    def account(self, window, holder):
        holders = sum(
            loan.units > 0 and not loan.settled
            for (starts, other), loan in self.loans.items()
            if starts == window and other != holder
        )
        loan = self.loans[window, holder]
        return Account(self.counted[window], loan, holders + 1)

    def change(self, window, holder, decide):
        account = self.account(window, holder)
        had = account.loan.units
        decision = decide(account)
        if isinstance(decision, LeaseGrant):
            self.world.lost += max(0, had + decision.units - account.loan.units)
        self.counted[window] = account.counted
        return decision

    def asked(self, holder, request, reply):
        """Answer a request; the site may be killed between any two steps."""
        self.go_on(lending.answer(request), None, holder, request, reply)

    def go_on(self, steps, value, holder, request, reply):
        if not self.up:
            return
        window = request.window_start
        try:
            while True:
                step = steps.send(value)
                match step:
                    case lending.Lend():
                        lend = lending.lend_again if step.again else lending.lend
                        value = self.change(
                            window,
                            holder,
                            lambda account, lend=lend: lend(
                                account, request, limit=self.limit
                            ),
                        )
                    case lending.ListOthers():
                        value = [
                            other
                            for (starts, other), loan in self.loans.items()
                            if starts == window
                            and other != holder
                            and loan.units
                            and not loan.settled
                        ]
                    case lending.AskHolder():
                        self.world.recall(
                            step.holder,
                            window,
                            lambda recalled: self.go_on(
                                steps, recalled, holder, request, reply
                            ),
                        )
                        return
                    case lending.TakeBack():
                        value = self.change(
                            window,
                            step.holder,
                            lambda account, step=step: lending.take_back(
                                account, step.recalled
                            ),
                        )
        except StopIteration as stop:
            reply(stop.value)


class Gateway:
    """One process from its start to its death, as a gateway's LeaseClient drives it."""

    def __init__(self, world, name, skew_s):
        self.world = world
        self.holder = f"{name}-{next(world.boots)}"
        self.skew_s = skew_s
        self.alive = True
        self.admission = Admission(
            1,
            world.limits(),
            overdraft=world.overdrafts,
            overdraft_share=OVERDRAFT_SHARE,
            prefetch=self.prefetch,
        )
        self.under_way = {}

    def now(self):
        return self.world.now + self.skew_s

    def call(self):
        """One call of a client, which is admitted, refused or told to try again."""
        if self.alive:
            self.try_to_spend(64)

    def try_to_spend(self, tries):
        at = self.now()
        outcome = self.admission.spend(1, at)
        if outcome is None:
            self.world.begin(self, at)
        elif isinstance(outcome, Refusal):
            self.world.refused += 1
        elif tries:
            self.fetch(outcome, tries)

    def fetch(self, request, tries):
        waiting = (request, tries - 1)
        if request.window_start in self.under_way:
            self.under_way[request.window_start].append(waiting)
            return
        self.under_way[request.window_start] = [waiting]
        # All that ask in the same turn share a request.
        self.world.after(0.0, lambda: self.ask(request.window_start, [request]))

    def prefetch(self, admission, request):
        if request.window_start not in self.under_way:
            self.under_way[request.window_start] = []
            self.ask(request.window_start, [request])

    def ask(self, window, requests):
        if not self.alive:
            return
        request = merged([*requests, *(r for r, _ in self.under_way[window])])

        def answered(grant):
            if self.alive:
                # Late or not: what was given up on is not taken.
                late = request.number not in open_requests
                self.world.late_answers += late
                self.admission.accept(request, grant, self.now())
                if not late:
                    open_requests.clear()
                    self.wake(window, failed=False)

        def timed_out():
            if self.alive and open_requests:
                open_requests.clear()
                self.admission.give_up_on(request)
                self.wake(window, failed=True)

        open_requests = {request.number}
        self.world.send(lambda: self.world.site_asked(self, request, answered))
        self.world.after(TIMEOUT_S, timed_out)

    def wake(self, window, *, failed):
        for request, tries in self.under_way.pop(window):
            if not failed or self.admission.overdraw(request, self.now()):
                self.try_to_spend(tries)
            else:
                self.world.unavailable += 1
        owed, self.admission.owed[:] = list(self.admission.owed), []
        for request in owed:
            self.world.send(lambda r=request: self.world.site_asked(self, r, id))

    def stop(self):
        for request in self.admission.release():
            self.world.send(lambda r=request: self.world.site_asked(self, r, id))
        self.kill()

    def kill(self):
        self.alive = False
        # Its usage is read to the end, then its leases are settled.
        self.world.after(self.world.random.uniform(2, 6), self.world.settle, self)


class World:
    def __init__(self, seed, *, gateways=4, faults=True):
        self.random = random.Random(seed)
        self.now = MIDNIGHT - 20.0
        self.events = []
        self.order = itertools.count()
        self.boots = itertools.count()
        self.faults = faults
        self.limit = self.random.choice([1, 7, 40, 150, 400])
        self.highest = defaultdict(int)
        self.site_was_away = False
        self.plan_changed = False
        self.site = Site(self, self.limit)
        self.overdrafts = Overdrafts()
        self.late_answers = self.refused = self.unavailable = self.kills = 0
        # Units that were given up, lost on the way, and freed after a death.
        self.recalled = self.lost = self.settled = 0
        # Answers that left, by holder and window: what the usage events say.
        self.ledger = Counter()
        self.gateways = [
            Gateway(self, f"g{n}", self.random.choice([0.0, 0.0, -2.0, 1.5]))
            for n in range(gateways)
        ]
        self.dead = []
        self.note_limit()
        if faults:
            self.plan_faults()
        self.plan_calls()

    def limits(self):
        return Limits(plan="p", rates=(), quotas=(Quota("day", "rows", self.limit),))

    def windows(self):
        return [int(MIDNIGHT) - 86400, int(MIDNIGHT)]

    def note_limit(self):
        for window in self.windows():
            self.highest[window] = max(self.highest[window], self.limit)

    # Events

    def after(self, delay_s, action, *arguments):
        at = self.now + delay_s
        heapq.heappush(self.events, (at, next(self.order), action, arguments))

    def send(self, deliver):
        """Deliver a message, late, never, or twice."""
        lossy = self.faults and self.now < CALLS_UNTIL
        chance = self.random.random()
        if lossy and chance < 0.05:
            return
        delay_s = self.random.uniform(0.001, 0.02)
        if lossy and chance < 0.12:
            delay_s = self.random.uniform(0.5, 4.0)
        elif lossy and chance < 0.25:
            delay_s = self.random.uniform(0.02, 0.5)
        self.after(delay_s, deliver)

    def site_asked(self, gateway, request, answered):
        if self.site.up:
            self.site.asked(
                gateway.holder,
                request,
                lambda grant: self.send(lambda: answered(grant)),
            )

    def recall(self, holder, window, answered):
        waits = [True]

        def once(recalled):
            if waits:
                waits.clear()
                answered(recalled)

        def asked():
            for gateway in self.gateways:
                if gateway.holder == holder and gateway.alive:
                    recall = Recall(
                        customer_id=1, quota="day", unit="rows", window_start=window
                    )
                    recalled = gateway.admission.recall(recall)
                    self.recalled += recalled.units
                    self.send(functools.partial(once, recalled))

        self.send(asked)
        self.after(TIMEOUT_S / 2, once, None)

    def settle(self, gateway):
        if not self.site.up:
            self.after(1.0, self.settle, gateway)
            return
        for window in self.windows():
            spent = self.ledger[gateway.holder, window]
            if (window, gateway.holder) in self.site.loans or spent:
                self.settled += self.site.change(
                    window,
                    gateway.holder,
                    lambda account, spent=spent: lending.settle(account, spent=spent),
                )
        if self.now < QUIET_UNTIL:
            # A request of the dead may arrive yet and open its loan again.
            self.after(5.0, self.settle, gateway)

    # Calls

    def begin(self, gateway, at):
        """End an admitted call after some time; some calls fail on our side."""
        fails = self.random.random() < 0.03
        self.after(self.random.expovariate(20), self.end, gateway, at, fails)

    def end(self, gateway, at, fails):
        if not gateway.alive:
            return
        if fails:
            gateway.admission.refund(1, at)
        else:
            self.ledger[gateway.holder, window_of("day", at)[0]] += 1

    def plan_calls(self):
        weights = [self.random.choice([1, 1, 10, 100]) for _ in self.gateways]
        rate = self.random.choice([3, 8, 20])
        at = 0.0
        while MIDNIGHT - 20.0 + at < CALLS_UNTIL:
            at += self.random.expovariate(rate)
            [place] = self.random.choices(range(len(weights)), weights)
            burst = 1 if self.random.random() < 0.9 else self.random.randint(2, 64)
            for _ in range(burst):
                self.after(at, lambda place=place: self.gateways[place].call())

    # Faults

    def plan_faults(self):
        for _ in range(self.random.randint(0, 5)):
            self.after(self.random.uniform(0, 70), self.replace_gateway)
        for _ in range(self.random.randint(0, 2)):
            self.after(self.random.uniform(0, 60), self.site_leaves)
        for _ in range(self.random.choice([0, 0, 1, 3])):
            self.after(self.random.uniform(0, 70), self.change_plan)

    def replace_gateway(self):
        place = self.random.randrange(len(self.gateways))
        gateway = self.gateways[place]
        self.kills += 1
        if self.random.random() < 0.3:
            gateway.stop()
        else:
            gateway.kill()
        name = gateway.holder.partition("-")[0]
        self.gateways[place] = Gateway(self, name, gateway.skew_s)

    def site_leaves(self):
        self.site.up = False
        self.site_was_away = True
        self.after(self.random.choice([0.3, 3.0, 12.0]), self.site_returns)

    def site_returns(self):
        self.site.up = True

    def change_plan(self):
        self.plan_changed = True
        self.limit = self.random.choice([1, 30, 150, 500])
        self.note_limit()
        self.site.limit = self.limit
        self.after(self.random.uniform(0, 1.0), self.publish)

    def publish(self):
        for gateway in self.gateways:
            gateway.admission.replace_limits(self.limits())

    # The run

    def run(self):
        self.until(QUIET_UNTIL)
        self.saturate()
        return self

    def until(self, end):
        while self.events and self.events[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)
        self.now = end

    def saturate(self):
        """Ask for more than is left, while all processes run and no message is lost.

        If no message was ever lost, one gateway alone must get all that is left.
        """
        self.site.up = True
        self.publish()
        asking = self.gateways
        if not self.faults:
            asking = [self.random.choice(self.gateways)]
        for _ in range(14):
            left = self.limit - self.admitted(int(MIDNIGHT))
            for gateway in asking:
                for _ in range(max(2, left + 1)):
                    gateway.call()
            self.until(self.now + 10.0)

    @property
    def overdrawn(self):
        return sum(self.overdrafts.cells)

    def admitted(self, window):
        return sum(n for (_, starts), n in self.ledger.items() if starts == window)

    def check(self):
        """Raise AssertionError for every promise that does not hold."""
        for window in self.windows():
            allowed = self.highest[window]
            if self.faults:
                allowed += int(OVERDRAFT_SHARE * self.highest[window])
            admitted = self.admitted(window)
            assert admitted <= allowed, f"{admitted} admitted of {allowed}"
        window = int(MIDNIGHT)
        admitted = self.admitted(window)
        if not self.faults:
            assert admitted == self.limit
        assert admitted >= self.limit, f"only {admitted} admitted of {self.limit}"
        held = sum(
            quota.available + quota.withheld
            for gateway in self.gateways
            for quota in gateway.admission.quotas()
            if quota.starts == window
        )
        counted = self.site.counted[window]
        assert counted == admitted + held, f"{counted} ≠ {admitted} + {held}"

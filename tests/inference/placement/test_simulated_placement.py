"""Whatever happens to hosts and wishes, what serves goes on serving."""

import sys
import types
from pathlib import Path

import pytest

from inference.placement import deciding
from tests.inference.placement.world import World
from tests.torture import FACTOR

STEPS = 60
SEEDS = 60 * FACTOR


def live(seed, place):
    world = World(seed, place=place)
    for _ in range(STEPS):
        world.step()
    world.settle()


def live_often(place):
    for seed in range(60):
        live(seed, place)


@pytest.mark.parametrize("block", range(6))
def test_a_simulated_plant_serves_through_everything(block):
    for seed in range(block, SEEDS, 6):
        try:
            live(seed, deciding.place)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


MUTANTS = {
    "unload before load": (
        "elif not is_served and key not in self._gives_way:",
        "elif False:",
    ),
    "end before gateways forget": ("elif place not in situation.left:", "elif False:"),
    "end what gateways may name": ("if key not in situation.releasable:", "if False:"),
    "start without room": ("if free < seat.nbytes:", "if False:"),
    "never give up the old place": (
        "elif place not in situation.left:",
        "else:",
    ),
    "be silent about what does not fit": (
        "self._lack(demand, free)",
        "pass",
    ),
    "take a new place each time": (
        "for holder, device in self._where_it_is(demand):",
        "for holder, device in ():",
    ),
    "keep an old artifact": (
        "return before.path != now.path or is_withdrawn",
        "return is_withdrawn",
    ),
    "keep code that is trusted no longer": (
        "return before.path != now.path or is_withdrawn",
        "return before.path != now.path",
    ),
    "recycle without a twin": (
        "if place in seats or self._must_stop(found, wanted):",
        "if place in seats or place.holder in situation.recycle:",
    ),
    "stop with one of several twins ready": (
        "is_served = bool(seats) and seats <= situation.ready",
        "is_served = bool(seats)",
    ),
    "put code beside programs": (
        'return "group" if isolation == "shared" else "own"',
        'return "device"',
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_simulation_notices(mutant):
    source = Path(deciding.__file__).read_text()
    old, new = MUTANTS[mutant]
    assert source.count(old) == 1
    broken = types.ModuleType("broken_placement")
    sys.modules[broken.__name__] = broken
    exec(source.replace(old, new), broken.__dict__)

    with pytest.raises(AssertionError):
        live_often(broken.place)

"""Check what holds processes with their authors' code on this machine."""

from typing import Any

from django.core import checks

from inference.installation import walls


@checks.register("walls")
def walls_hold(**_: Any) -> list[checks.CheckMessage]:
    """Warn of walls that this machine's kernel cannot build; silent where all hold."""
    gaps = walls.gaps(walls.available())
    if not gaps:
        return []
    listed = "\n".join(f"  {name}: {sentence}" for name, sentence in gaps.items())
    return [
        checks.Warning(
            "Models that run their author's code are not held in whole here.\n"
            f"{listed}",
            hint="Serve only models whose authors you trust with this machine, or use "
            "Linux 6.12 or later with Landlock. Containers must let Landlock through.",
            id="inference.W001",
        )
    ]

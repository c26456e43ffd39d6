"""Store on disk which versions an engine should load."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from inference.engine.settings import EngineSettings
from inference.engine.wire.messages import VersionToLoad
from inference.installation import whole_files
from inference.installation.home import Home

logger = structlog.get_logger()

_decoder = msgspec.json.Decoder(list[VersionToLoad])


def path_of(settings: EngineSettings) -> Path:
    return Home(settings.root).engine / f"{settings.name}.json"


def read(settings: EngineSettings) -> list[VersionToLoad]:
    """Read the list; if unreadable, return an empty one, which the controller fills."""
    path = path_of(settings)
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        logger.error("desired_state_unreadable", path=str(path), reason=str(error))
        return []


def write(settings: EngineSettings, versions: Sequence[VersionToLoad]) -> None:
    """Replace the list atomically."""
    path = path_of(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_files.write(path, msgspec.json.encode(versions))

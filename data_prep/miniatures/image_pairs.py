"""To be written."""

from collections.abc import Callable

from data_prep.miniatures.studio import Studio
from data_prep.source import SourceSet

MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {}

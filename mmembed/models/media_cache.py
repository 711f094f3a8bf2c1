"""A bounded memory of prepared media, least recently used out first."""

from collections import OrderedDict
from typing import Any


class MediaCache:
    """Values by content name, up to a number of bytes; one for each process that prepares."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, name: str) -> Any | None:
        """The value, now the most recently used, or None."""
        if name not in self._values:
            return None
        self._values.move_to_end(name)
        return self._values[name][0]

    def put(self, name: str, value: Any, size: int) -> None:
        """Keep ``value`` of ``size`` bytes, dropping the least recently used; one over the whole bound is not kept."""
        if size > self.max_bytes or name in self._values:
            return
        self._values[name] = (value, size)
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, (_, dropped) = self._values.popitem(last=False)
            self.bytes -= dropped

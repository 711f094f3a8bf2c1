"""Which frames a clip holds and where decoding may start, read from its packets without decoding them."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# VP8 keeps reference frames that are never shown in packets of their own
_INVISIBLE_FRAMES = frozenset({"vp8"})


@dataclass(frozen=True)
class Timetable:
    """Presentation times of all frames, or only their number where the container stores no times.

    Args:
        times: ascending and distinct, in the stream's time base; empty where unknown.
        keyframes: the times at which decoding can start, ascending.
        untimed: number of frames where ``times`` is empty.
    """

    times: tuple[int, ...]
    keyframes: tuple[int, ...] = ()
    untimed: int = 0

    def __len__(self) -> int:
        return len(self.times) or self.untimed

    def index(self, time: int | None, position: int) -> int:
        """Index of the frame shown at ``time``, the ``position``-th since decoding started; -1 if not in the table."""
        if not self.times:
            return position
        if time is None:
            return -1
        found = bisect.bisect_left(self.times, time)
        return found if found < len(self.times) and self.times[found] == time else -1

    def runs(self, indices: Sequence[int]) -> list[tuple[int | None, list[int]]]:
        """``indices`` in ascending groups, each behind the keyframe it is decoded from (None: the clip's start)."""
        groups: dict[int | None, list[int]] = {}
        for index in sorted(set(indices)):
            groups.setdefault(self._keyframe_before(index), []).append(index)
        return list(groups.items())

    def _keyframe_before(self, index: int) -> int | None:
        if not self.times:
            return None
        before = bisect.bisect_right(self.keyframes, self.times[index])
        return self.keyframes[before - 1] if before else None


def timetable_of(stream: Any) -> Timetable | None:
    """The timetable of a PyAV video stream by its packets; None where they do not tell and frames must be counted."""
    if stream.codec_context.name in _INVISIBLE_FRAMES:
        return None
    packets = [(p.pts, p.is_keyframe, p.is_discard) for p in stream.container.demux(stream) if p.size]
    # an MP4 edit list marks frames as discarded: they are decoded for others' sake and never shown
    shown = [time for time, _, discarded in packets if not discarded]
    if None in shown or len(set(shown)) < len(shown):
        return None
    keyframes = sorted(time for time, is_key, _ in packets if is_key and time is not None)
    return Timetable(tuple(sorted(shown)), tuple(keyframes))


def counted(stream: Any) -> Timetable:
    """The timetable of a PyAV video stream by decoding all of it: the number of frames, no times."""
    return Timetable((), untimed=sum(1 for _ in stream.container.decode(stream)))

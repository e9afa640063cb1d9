"""When a release may go on: time windows of a week, each in a time zone of its own.  Pure: `now` is an argument.

    Mon Tue ... 09:00 - 17:00 Europe/Berlin  --now-->  is it open?  when does it open next?

A window belongs to the day it begins on; one whose end is not after its beginning goes over midnight.  Hours are the wall
clock's: on the day the clock changes a window is an hour longer or shorter, as the people who keep those hours are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_HORIZON_DAYS = 8  # a week, and the day the clock changes


@dataclass(frozen=True, slots=True)
class Window:
    """`days`: 0 (Monday) .. 6; `begin`, `end`: minutes since midnight, 0 .. 1440."""

    days: frozenset[int]
    begin: int
    end: int
    zone: ZoneInfo

    def spans(self, now: float) -> Iterator[tuple[float, float]]:
        """(from, to) in Unix seconds, in order: the one that may have begun yesterday, and those of the next week."""
        today = datetime.fromtimestamp(now, self.zone).date()
        for offset in range(-1, _HORIZON_DAYS + 1):
            day = today + timedelta(days=offset)
            if day.weekday() not in self.days:
                continue
            over_midnight = self.end <= self.begin
            end = self._moment(day + timedelta(days=1), self.end) if over_midnight else self._moment(day, self.end)
            yield self._moment(day, self.begin), end

    def _moment(self, day: date, minutes: int) -> float:
        if minutes == 24 * 60:
            day, minutes = day + timedelta(days=1), 0
        return datetime.combine(day, time(minutes // 60, minutes % 60), self.zone).timestamp()


def opens(windows: Sequence[Window], now: float) -> float | None:
    """None if a release may go on now (also when there are no windows); else when the next window opens, in Unix seconds."""
    following: list[float] = []
    for window in windows:
        for begin, end in window.spans(now):
            if begin <= now < end:
                return None
            if begin > now:
                following.append(begin)
                break
    return min(following) if following else None


def said(windows: Sequence[Window], moment: float) -> str:
    """A moment as a person reads it, in the zone of the first window: Mon 2026-01-05 09:00 CET."""
    zone = windows[0].zone if windows else UTC
    return datetime.fromtimestamp(moment, zone).strftime("%a %Y-%m-%d %H:%M %Z")

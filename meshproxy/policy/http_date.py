"""HTTP's dates (RFC 9110 5.6.7), in the three spellings that a recipient has to read.

    Sun, 06 Nov 1994 08:49:37 GMT      IMF-fixdate: what is sent today
    Sunday, 06-Nov-94 08:49:37 GMT     RFC 850: the century follows from the time it is read at
    Sun Nov  6 08:49:37 1994           C's asctime

All of them are UTC and case-sensitive.  The day of the week is read over: it says nothing that the date does not.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

_DAY: Final = b"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = b"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH: Final = b"(?P<month>" + b"|".join(_MONTHS) + b")"
_TIME: Final = rb"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)"  # 60: a leap second

_FIXDATE: Final = re.compile(_DAY + rb", (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + b" GMT")
_RFC_850: Final = re.compile(_LONG_DAY + rb", (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + b" GMT")
_ASCTIME: Final = re.compile(_DAY + b" " + _MONTH + rb" (?P<day>\d\d| \d) " + _TIME + rb" (?P<year>\d{4})")

_EPOCH: Final = date(1970, 1, 1).toordinal()
_DAY_S: Final = 86400
_YEARS_AHEAD: Final = 50  # a year of two digits that seems further away than this is one of the past (RFC 9110 5.6.7)


def parse_http_date(value: bytes, now: float) -> float | None:
    """Unix seconds; None for what is no HTTP-date.  `now`, Unix seconds too, gives a year of two digits its century."""
    found = _FIXDATE.fullmatch(value) or _RFC_850.fullmatch(value) or _ASCTIME.fullmatch(value)
    if found is None:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        this = date.fromordinal(_EPOCH + int(now) // _DAY_S).year
        year += this - this % 100
        if year > this + _YEARS_AHEAD:
            year -= 100
    try:
        day = date(year, _MONTHS.index(found["month"]) + 1, int(found["day"])).toordinal() - _EPOCH
    except ValueError:  # 30 February, the year 0
        return None
    seconds = int(found["hour"]) * 3600 + int(found["minute"]) * 60 + int(found["second"])
    return float(day * _DAY_S + seconds)

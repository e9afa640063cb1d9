"""The few lines of a Prometheus text exposition that a canary is judged by.

prometheus_client's parser reads everything, about 10 us a line; a proxy's page is hundreds of lines of which we need a
dozen, every second, from every pod.  So: lines of the wanted families by prefix, labels by one regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
MOST = 2.0**53  # beyond it a float does not count by ones any more

_ESCAPE = re.compile(r'\\[\\"n]')


def samples(text: str, families: Collection[str]) -> Iterator[tuple[str, str, dict[str, str], float]]:
    """(name, identity, labels, value) of each sample whose name is in `families`; `identity` is the series as written.

    Lines that are not samples are passed over; a sample whose value no counter has is too: a page cut short, NaN, less than
    zero, more than MOST.  Whoever listens at a pod's port wrote it, and a NaN that is added to a sum stays in it."""
    for line in text.splitlines():
        brace = line.find("{")
        if brace < 0 or line[:brace] not in families:
            continue
        end = line.rfind("}")
        if end < 0:
            continue
        fields = line[end + 1 :].split()
        try:
            value = float(fields[0])
        except (IndexError, ValueError):
            continue
        if not 0.0 <= value <= MOST:
            continue
        body = line[brace + 1 : end]
        labels = {name: _plain(raw) for name, raw in _LABEL.findall(body)}
        yield line[:brace], line[: end + 1], labels, value


def _plain(raw: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES[found.group()], raw) if "\\" in raw else raw

"""File descriptors: how many there are, and what an error about them means."""

from __future__ import annotations

import errno
import resource
from typing import Final

# More than this many sockets are more memory than a sidecar has; a limit of 2^30 is no plan.
MOST: Final = 200_000

# connect() and socket() failing for want of something of *ours*: the endpoint has nothing to do with it.
OURS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def raise_limit() -> int:
    """Take what the administrator allows (the hard limit); returns how many descriptors this process may have.  The usual soft
    limit of 1,024 is a concession to select(), which is not used here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, max(MOST, soft))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            wanted = soft  # a kernel bound below the hard limit (fs.nr_open in a container)
    return min(wanted, MOST)


def limit() -> int:
    """How many descriptors this process may have now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)

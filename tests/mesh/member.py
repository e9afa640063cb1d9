"""A proxy without a data path: membership of the mesh on uvloop, one JSON line on stdout at each change.

python member.py WATCH CERTIFY DIRECTORY NAMESPACE POD ACCOUNT
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.knowledge import Known
from meshproxy.mesh.membership import Membership


async def main() -> None:
    watch, certify, directory, namespace, pod, account = sys.argv[1:]
    root = Path(directory)
    settings = IdentitySettings(
        certify,
        namespace,
        account,
        pod,
        "cluster.local",
        root / "trust" / "root.pem",
        root / "pods" / namespace / pod / "token",
    )
    known = Known()

    def build(new: Known) -> None:
        nonlocal known
        known = new

    membership = Membership(settings, watch, build)

    async def report() -> None:
        last = ""
        while True:
            await asyncio.sleep(0.005)
            ready, _ = membership.ready(time.time())
            now = {
                "ready": ready,
                "stale": membership.watch.stale_since is not None,
                "connects": membership.watch.connects,
                "renewals": membership.identity.renewals,
                "failures": membership.identity.failures,
                "services": sorted(known.services),
                "addresses": sorted(e.address for one in known.endpoints.values() for e in one.endpoints),
            }
            line = json.dumps(now)
            if line != last:
                last = line
                print(line, flush=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(membership.run())
        group.create_task(report())


if __name__ == "__main__":
    uvloop.run(main())

"""Certificates for peers that take files: one authority, and a leaf each for the two ends, as the mesh issues them.

    DIRECTORY/server/  cert.pem key.pem ca.pem     spiffe://bench.local/ns/bench/sa/bench      B, and mtls on one hop
    DIRECTORY/client/  cert.pem key.pem ca.pem     spiffe://bench.local/ns/bench/sa/caller     A, and its clients

P-256 keys and SPIFFE URI SANs, like those of every mesh in the comparison.
"""

from __future__ import annotations

import time
from pathlib import Path

from certs.authority import open_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId

TRUST_DOMAIN = "bench.local"
SERVER, CLIENT = "server", "client"
SERVER_ID = f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/bench"
CLIENT_ID = f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/caller"


def write_certificates(directory: Path) -> None:
    """Write both folders; what is there already stays."""
    now = time.time()
    authority = open_authority(directory / "authority", TRUST_DOMAIN, now)
    for folder, identity in ((SERVER, SERVER_ID), (CLIENT, CLIENT_ID)):
        target = directory / folder
        if (target / "cert.pem").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        svid = issue_svid(authority, SpiffeId.parse(identity), now)
        (target / "key.pem").touch(mode=0o600)
        (target / "key.pem").write_bytes(svid.key_pem)
        (target / "cert.pem").write_bytes(svid.chain_pem)
        (target / "both.pem").touch(mode=0o600)
        (target / "both.pem").write_bytes(svid.chain_pem + svid.key_pem)  # HAProxy wants one file
        (target / "ca.pem").write_text(authority.bundle.pem)

"""The one table of what the reference engine (`--http2-engine=h2`) does otherwise than ours.

    row of a table  --expected("ours", row, outcome)-->  what the RFC says, which is what ours does
                    --expected("h2",   row, outcome)-->  the same, or what is written here

WIRE      tests/wire/test_http2_frames.py                FLOODS   tests/wire/test_http2_floods.py
SERVER    tests/conformance/test_http2_musts.py          CLIENT   tests/conformance/test_http2_client_musts.py
HPACK     tests/conformance/test_hpack_musts.py          ATTACKS  tests/conformance/test_frame_attacks.py

SERVER, HPACK and CLIENT hold for the engine alone and for a running proxy (test_http2_rows_proxied.py and
test_http2_client_rows_proxied.py).  Each row is asserted to come out exactly as it is said here, and not as ours does: one that
h2 or the adapter has mended has to leave.  Why these may stay:

a  where h2 judges messages itself (the order of their frames, lengths; all fields are judged by http2/heads.py) it knows no
   stream error and ends the connection.  RFC 9113 5.4.1 lets an endpoint do so; it costs the streams beside it.  Nothing of
   the message is passed on, which is what matters.
b  another code, or the stream's error for the connection's, where the RFC leaves the choice or no peer can tell the difference
c  once both directions have ended h2 sends no RST_STREAM: the exchange fails all the same, for everybody but the peer
e  a head many times over the limit: h2 ends the connection (ENHANCE_YOUR_CALM), for the decoder's state is lost; ours answers
   431
f  what hyperframe or hpack do not tell: the values of one SETTINGS frame but the last of each kind; that a literal was not to
   be indexed (it may be, RFC 7541 6.2.2)
g  h2 lets pass what a peer must not send but nobody must refuse
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.wire.engine import ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, STREAM_CLOSED
from meshproxy.wire.h2_adapter import H2Client, H2Server
from meshproxy.wire.http2 import Http2Client, Http2Server

SERVERS: dict[str, Any] = {"ours": Http2Server, "h2": H2Server}
CLIENTS: dict[str, Any] = {"ours": Http2Client, "h2": H2Client}

Outcome = Any  # FINE, ("reset", code), ("goaway", code), ("status", code); of single rules also what they assert
FINE: Final = "fine"
UNSAID: Final = "reset, and nothing is said of it"  # (c)

CONNECTION: Outcome = ("goaway", PROTOCOL_ERROR)
FRAME_SIZE: Outcome = ("goaway", FRAME_SIZE_ERROR)
CALM: Outcome = ("goaway", ENHANCE_YOUR_CALM)
ENDED: Outcome = ("reset", STREAM_CLOSED)

WIRE: dict[str, Outcome] = {
    # a
    **dict.fromkeys(
        (
            *("H2D-14", "H2D-18", "trailers without END_STREAM"),
            *("content-length twice, different", "PRIORITY on itself", "WINDOW_UPDATE of 0 on a stream"),
            *("response: 100 with END_STREAM", "response: DATA before HEADERS", "response: DATA after 100 alone"),
            *("response: more DATA than declared", "response: less DATA than declared"),
        ),
        CONNECTION,
    ),
    # b
    "DATA on a closed stream": ENDED,
    "DATA after the peer's reset": ENDED,
    "DATA without room for its pad length": FRAME_SIZE,
    "PRIORITY of 4 bytes": FRAME_SIZE,
    # c
    "response: no status": UNSAID,
    "response: status after a field": UNSAID,
    "response: a path in a response": UNSAID,
    "response: a second head": UNSAID,
    "response: status of two digits": UNSAID,
    "response: status 600": UNSAID,
    "response: a length and no body": UNSAID,
    "response: trailers before the declared body is complete": UNSAID,
    "response: a body with 204": UNSAID,
    "response: a body with 304": UNSAID,
}

SERVER: dict[str, Outcome] = {
    # a
    **dict.fromkeys(
        (
            "8.1 trailers end the stream",
            *("8.1.1 content-length that is no number", "8.1.1 content-length with a sign"),
            "8.1.1 two content-lengths that differ",
            *("8.1.1 one byte less", "8.1.1 one byte more", "8.1.1 nothing at all"),
            "8.1.1 something where nothing was declared",
            "6.9 WINDOW_UPDATE of 0 on a stream",
        ),
        CONNECTION,
    ),
    "6.3 PRIORITY of 4 bytes": FRAME_SIZE,
    "6.3 PRIORITY of 6 bytes": FRAME_SIZE,
    "6.1 padding spends the window": ("goaway", FLOW_CONTROL_ERROR),
    # b
    "5.1.1 ids go up": CONNECTION,
    "6.1 no room for the pad length": FRAME_SIZE,
    "5.1 closed by both ends: DATA": ENDED,
    "5.1 closed by the peer's RST_STREAM: DATA": ENDED,
    "5.1 closed by the peer's RST_STREAM: HEADERS": ENDED,
    "5.1 closed by our RST_STREAM: DATA": ENDED,
    "5.1 closed by our RST_STREAM: HEADERS": ENDED,
    "5.1 closed by a higher stream: DATA": ENDED,
    "5.1 closed by a higher stream: HEADERS": CONNECTION,
    "5.1 closed by a higher stream: CONTINUATION": ("goaway", STREAM_CLOSED),
    # f
    "6.5.3 the last value of a kind holds, all are looked at": FINE,
    # g
    "8441 3 ENABLE_CONNECT_PROTOCOL does not go back to 0": FINE,
    "6.5.2 a server says nothing of push": False,  # h2's says 0, which it may
}

CLIENT: dict[str, Outcome] = {
    # a
    **dict.fromkeys(
        (
            *("8.1 DATA before HEADERS", "8.1 DATA after an interim response alone"),
            *("8.1 an interim response does not end the stream", "8.1 trailers without END_STREAM", "8.1 a second head"),
            *("8.1.1 more DATA than declared", "8.1.1 less DATA than declared", "8.1.1 two lengths that differ"),
            *("5.1 open: DATA", "5.1 half-closed (local): DATA"),
            "6.9 WINDOW_UPDATE of 0 on a stream",
        ),
        CONNECTION,
    ),
    "6.3 PRIORITY of 4 bytes": FRAME_SIZE,
    "6.9.1 DATA beyond the window": ("goaway", FLOW_CONTROL_ERROR),
    # b
    "5.1 closed by both ends: DATA": ENDED,
    "5.1 closed by the peer's RST_STREAM: DATA": ENDED,
    "5.1 closed by the peer's RST_STREAM: HEADERS": ENDED,
    "5.1 closed by our RST_STREAM: DATA": ENDED,
    "5.1 closed by our RST_STREAM: HEADERS": ENDED,
    # c
    **dict.fromkeys(
        (
            *("8.3 a pseudo field in trailers", "8.2.2 a connection field in trailers"),
            *("8.3.2 no :status", "8.3.2 :status twice", "8.3.2 :status after a field", "8.3.2 a request's pseudo field"),
            *("8.2.1 a name in upper case", "8.2.1 LF in a value", "8.2.1 CR in a value", "8.2.1 NUL in a value"),
            "8.2.1 white space around a value",
            *("8.2.2 connection", "8.2.2 transfer-encoding", "8.2.2 upgrade", "8.2.2 keep-alive"),
        ),
        UNSAID,
    ),
    "8.3.2 :status of two digits": UNSAID,
    "8.3.2 :status of four digits": UNSAID,
    "8.3.2 :status with a sign": UNSAID,
    "8.1.1 a length and no DATA": UNSAID,
    "8.1.1 a body with 204": UNSAID,
    # g
    "8441 3 ENABLE_CONNECT_PROTOCOL does not go back to 0": FINE,
}

HPACK: dict[str, Outcome] = {
    # f
    "6.2.2 what came not indexed takes no room in the table": False,
}

ATTACKS: dict[str, Outcome] = {
    # a
    "H2A-04 WINDOW_UPDATE of 0": PROTOCOL_ERROR,  # the first of them
    "H2A-05 PRIORITY of 4 bytes": FRAME_SIZE_ERROR,
    "H2A-05 PRIORITY on itself": PROTOCOL_ERROR,
    # e
    "H2A-13 a header list of 1 MiB": ENHANCE_YOUR_CALM,
    "H2A-14 a large entry 2,000 times": ENHANCE_YOUR_CALM,
}

FLOODS: dict[str, Outcome] = {
    # a
    "window update of 0": PROTOCOL_ERROR,
    "short priority": FRAME_SIZE_ERROR,
    "own parent": PROTOCOL_ERROR,
    "relayed: own parent": PROTOCOL_ERROR,
    # b
    "DATA beyond the window of a reset stream": (100, None),  # RST_STREAM again, as often as it comes; its window goes back
}

TABLES: Final = {"wire": WIRE, "server": SERVER, "client": CLIENT, "hpack": HPACK, "attacks": ATTACKS, "floods": FLOODS}


def expected(which: str, table: str, row: str, ours: Outcome) -> Outcome:
    """What the engine `which` is to make of that row, where ours makes `ours` of it."""
    if which == "ours" or row not in TABLES[table]:
        return ours
    there = TABLES[table][row]
    assert there != ours, "no difference: the row belongs out of the table"
    return there


def seen(outcome: Outcome) -> Outcome:
    """What the peer sees of it."""
    return FINE if outcome == UNSAID else outcome


def strangers(table: str, *rows: Any) -> set[str]:
    """Rows of a table of differences that nobody plays."""
    return set(TABLES[table]) - {name for names in rows for name in names}

"""What a connection speaks, from its first bytes; and what a TLS client offers."""

from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshproxy.wire.detect import (
    DETECT_BYTES,
    HTTP1,
    HTTP2,
    NEED_MORE,
    OPAQUE,
    PREFACE,
    TLS,
    client_hello,
    client_hello_alpn,
    detect,
    foreign_word,
    server_preface,
)

DECIDED = [
    (b"GET / HTTP/1.1\r\n", HTTP1),
    (b"\r\nGET / HTTP/1.1\r\n", HTTP1),
    (b"OPTIONS * HTTP/1.1\r\n", HTTP1),
    (b"GET http://svc.test/ HTTP/1.1\r\n", HTTP1),
    (b"CONNECT db.test:5432 HTTP/1.1\r\n", HTTP1),
    (b"PROPFIND /x HTTP/1.1\r\n", HTTP1),
    (b"x-y!z anything HTTP/1.0\r\n", HTTP1),
    (b"PRI * HTTP/1.1\r\n", HTTP1),
    (PREFACE, HTTP2),
    (PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", HTTP2),
    (b"\x16\x03\x01\x02\x00\x01", TLS),
    (b"\x16\x03\x03\x02\x00\x01", TLS),
    (b"\x16\x02\x00", OPAQUE),
    (b"SSH-2.0-OpenSSH_9.9\r\n", OPAQUE),
    (b"EHLO mail.test\r\n", OPAQUE),
    (b"PING\r\n", OPAQUE),
    (b"*1\r\n$4\r\nPING\r\n", OPAQUE),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", OPAQUE),
    (b"\r\n\r\n", NEED_MORE),
    (b"\r\rGET", NEED_MORE),
    (b"\n\n\x00", OPAQUE),
    (b"GET key\r\n", OPAQUE),
    (b"A" * 33, NEED_MORE),
    (b"A" * 33 + b"\r\n", OPAQUE),
    (b"SELECT 1 FROM t\n", OPAQUE),
    (b"0023git-upload-pack /a\0host=b.test\0", OPAQUE),
]


@pytest.mark.parametrize(("data", "expected"), DECIDED)
def test_each_protocol_is_recognised_and_no_prefix_decides_otherwise(data: bytes, expected: int) -> None:
    assert detect(data) == expected
    for size in range(len(data)):
        assert detect(data[:size]) in (NEED_MORE, expected)


@pytest.mark.parametrize("data", [b"0024git-upload-pack /a\0host=b.test\0", b"GETX /a\0"])
def test_a_line_that_does_not_count_itself_is_no_packet_line(data: bytes) -> None:
    assert detect(data) == NEED_MORE


@pytest.mark.parametrize(
    ("data", "foreign"),
    [
        (b"ruok", True),
        (b"GETS", True),
        (b"G", False),
        (b"GET", False),
        (b"OPTIO", False),
        (b"PRI", False),
        (b"PRI * HT", False),
        (b"BREW ", False),
        (b"\r\n", False),
        (b"", False),
    ],
)
def test_a_word_that_begins_no_method_is_foreign(data: bytes, foreign: bool) -> None:
    assert foreign_word(data) == foreign


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", True),
        (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", True),
        (b"\x00\x00\x00\x04\x01\x00\x00\x00\x00", False),
        (b"\x00\x00\x00\x04\x00\x00\x00\x00", False),
        (b"220 ready\r\n", False),
    ],
)
def test_settings_are_what_a_server_of_http2_may_say_first(data: bytes, said: bool) -> None:
    assert server_preface(data) == said


REQUESTS = [
    b"GET /a HTTP/1.1\r\n",
    b"PROPFIND /a HTTP/1.1\r\n",
    b"M" * 33 + b" /a HTTP/1.1\r\n",
    b"M" * 5000 + b" /a HTTP/1.1\r\n",
    b"PROPFIND /a HTTP/1.1 \t\r\n",
    b"PROPFIND /a http/1.1\n",
    b"PROPFIND /a HTTP/1.10\r\n",
]
IN_FRONT = [b"", b"\n", b"\r\n", b"\r\n\r\n", b"\n\r\n", b"\r", b" ", b"\t", b"\v\f", b" \r\n" * 300]


@pytest.mark.parametrize("front", IN_FRONT)
@pytest.mark.parametrize("between", [b" ", b"\t", b"\v", b"\f", b"\r", b" \t "])
@pytest.mark.parametrize("line", REQUESTS)
def test_a_request_line_in_any_spelling_that_a_server_may_read_is_http(front: bytes, between: bytes, line: bytes) -> None:
    """RFC 9112 2.2, 3: white space in front, other white space than SP.  As bytes it would pass every rule by."""
    data = front + line.replace(b" ", between)
    assert detect(data) == HTTP1
    assert detect(data + b"Host: a\r\n\r\n") == HTTP1
    for size in (*range(min(len(data), 100)), len(data) - 1):
        assert detect(data[:size]) in (NEED_MORE, HTTP1)


@pytest.mark.parametrize(
    "data", [b"GET /\r\n\r\n", b"GET  / HTTP/1.1\r\n", b"GET / HTTP/9.9\r\n", b"GET /a b\n", b"GET x HTTP/1.1\r\n"]
)
def test_malformed_http_is_still_http_so_that_it_is_refused_and_not_passed_on_unread(data: bytes) -> None:
    assert detect(data) == HTTP1


def test_detection_needs_no_more_than_its_bound() -> None:
    assert detect(b"CONNECT " + b"a" * 100) == NEED_MORE
    assert detect(b"CONNECT " + b"a" * DETECT_BYTES) == HTTP1
    assert detect(b"CUSTOM " + b"a" * 100) == NEED_MORE
    assert detect(b"CUSTOM /" + b"a" * DETECT_BYTES) == HTTP1
    assert detect(b"M" * (DETECT_BYTES - 1)) == NEED_MORE
    assert detect(b"M" * DETECT_BYTES) == HTTP1
    assert detect(b" " * (DETECT_BYTES - 1)) == NEED_MORE
    assert detect(b" " * DETECT_BYTES) == HTTP1
    assert detect(b" " * DETECT_BYTES + b"\x00") == HTTP1


OPAQUE_PROTOCOLS = {
    "SMTP": b"EHLO client.test\r\nMAIL FROM:<a@b> SIZE=3\r\n",
    "IMAP": b"a001 CAPABILITY\r\n",
    "IMAP login": b"a1 LOGIN user secret\r\n",
    "POP3": b"USER name\r\nPASS secret\r\n",
    "FTP": b"USER anonymous\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n\x00\x00\x04\x3c\x07\x14",
    "Redis": b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
    "Redis inline": b"PING\r\n",
    "Redis inline of three words": b"SET key value\r\n",
    "Redis inline of three words, twice": b"SET key value\r\nSET key value\r\n",
    "Redis inline GET": b"GET key\r\n",
    "Redis HELLO": b"HELLO 3\r\n",
    "memcached get": b"get a b\r\n",
    "memcached gets of one": b"gets a\r\n",
    "memcached incr": b"incr k 5\r\n",
    "memcached empty value": b"set k 0 0 0\r\n\r\n",
    "memcached meta": b"mg key v\r\n",
    "beanstalkd": b"put 0 0 60 5\r\nhello\r\n",
    "MySQL": b"\x20\x00\x00\x01\x85\xa6\x3f\x20\x00\x00\x00\x01\x21",
    "PostgreSQL SSLRequest": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "PostgreSQL startup": b"\x00\x00\x00\x2b\x00\x03\x00\x00user\x00postgres\x00database\x00shop\x00\x00",
    "PostgreSQL cancel": b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02",
    "STOMP": b"CONNECT\naccept-version:1.2\nhost:x\n\n\x00",
    "STOMP CRLF": b"STOMP\r\naccept-version:1.2\r\n\r\n\x00",
    "NATS": b'CONNECT {"verbose":false}\r\nPING\r\n',
    "AMQP 0-9-1": b"AMQP\x00\x00\x09\x01",
    "AMQP 1.0": b"AMQP\x03\x01\x00\x00",
    "MQTT": b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
    "Kafka": b"\x00\x00\x00\x23\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07console",
    "Cassandra": b"\x04\x00\x00\x00\x05\x00\x00\x00\x00",
    "MongoDB": b"\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00",
    "LDAP": b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00",
    "LDAP, 9 bytes": b"\x30\x09\x02\x01\x01\x60\x04\x02\x01\x03\x04",
    "ZooKeeper": b"\x00\x00\x00\x2d\x00\x00\x00\x00",
    "IRC": b"NICK foo\r\nUSER foo 0 * :Foo\r\n",
    "RTSP": b"DESCRIBE rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "RTSP without fields": b"DESCRIBE rtsp://a/b RTSP/1.0\r\n\r\n",
    "SIP": b"OPTIONS sip:a@b SIP/2.0\r\n\r\n",
    "ICAP": b"OPTIONS icap://a/b ICAP/1.0\r\n\r\n",
    "finger": b"user\r\n",
    "HL7 MLLP": b"\x0bMSH|^~\\&|lab|a|b|c\r\x1c\r",
    "a long word": b"M" * 100 + b"\r\n",
}


@pytest.mark.parametrize("name", OPAQUE_PROTOCOLS)
def test_protocols_that_are_no_http_stay_bytes_however_they_are_cut(name: str) -> None:
    data = OPAQUE_PROTOCOLS[name]
    assert detect(data) == OPAQUE
    for size in range(1, len(data)):
        assert detect(data[:size]) in (NEED_MORE, OPAQUE), data[:size]
    # Their first line, sent alone, must be enough: the client waits for an answer to it.
    line, newline, _ = data.partition(b"\n")
    if newline:
        assert detect(line + newline) == OPAQUE


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"INVALID CONNECTION PREFACE\r\n\r\n", HTTP2),  # h2spec 3.5/2
        (b"FETCH x http/1.1\r\n\r\n", HTTP1),
        (b"FETCH x HTTP/11\r\n\r\n", HTTP1),
        (b"FETCH x HTTP\r\n\r\n", HTTP2),
        (b"FETCH x y\r\n\r\nand more", HTTP2),
        (b"GET /\x0b HTTP/x.y\r\n\r\n", HTTP1),
        (b"GET x y\r\n\r\n", HTTP1),
    ],
)
def test_three_words_and_an_empty_line_are_refused_and_not_passed_on(data: bytes, expected: int) -> None:
    assert detect(data) == expected


@pytest.mark.parametrize("size", range(14, 24))
@pytest.mark.parametrize("tail", [b"x", b"Host: a\r\n\r\n", b"\x00" * 9])
def test_a_preface_that_goes_wrong_is_for_the_http2_engine_to_answer(size: int, tail: bytes) -> None:
    assert detect(PREFACE[:size] + tail) == HTTP2


@given(
    data=st.one_of(
        st.binary(max_size=60), st.sampled_from([d for d, _ in DECIDED]).flatmap(lambda d: st.binary(max_size=5).map(d.__add__))
    )
)
@example(data=b"")
def test_a_decision_once_made_stands_whatever_follows(data: bytes) -> None:
    decided = NEED_MORE
    for size in range(len(data) + 1):
        now = detect(data[:size])
        if decided == OPAQUE and now in (HTTP1, HTTP2):  # the empty line after three words is not waited for
            assert data[:size].count(b"\n") >= 2
        elif decided != NEED_MORE:
            assert now == decided
        decided = now


# -- ClientHello


def hello(server_name: str | None = None, alpn: list[str] | None = None) -> bytes:
    """A real ClientHello, from OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def records(message: bytes, size: int) -> bytes:
    """The handshake message cut into records of `size` bytes."""
    parts = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts)


@pytest.mark.parametrize("server_name", [None, "Prices.Shop.test"])
@pytest.mark.parametrize("alpn", [None, ["meshproxy/1"], ["h2", "http/1.1"]])
def test_name_and_protocols_of_a_real_hello_are_read_when_it_is_whole(server_name: str | None, alpn: list[str] | None) -> None:
    data = hello(server_name, alpn)
    assert detect(data) == TLS
    for size in range(len(data)):
        assert client_hello(data[:size]) is None
    for given_data in (data, data + b"\x14\x03\x03\x00\x01\x01"):
        found = client_hello(given_data)
        assert found is not None
        assert found.server_name == (server_name or "").lower().encode()
        assert found.alpn == [name.encode() for name in alpn or []]


def test_a_hello_cut_into_many_records_is_the_same_hello() -> None:
    message = hello("a.test", ["meshproxy/1"])[5:]
    for size in (1, 2, 3, 4, 5, 50, len(message) - 1):
        data = records(message, size)
        assert client_hello_alpn(data[:-1]) is None
        assert client_hello_alpn(data) == [b"meshproxy/1"]


def built(extensions: bytes, session: bytes = b"", tail: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + bytes([len(session)]) + session + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions + tail
    return records(b"\x01" + len(body).to_bytes(3, "big") + body, 16384)


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


ALPN = extension(16, b"\x00\x0c\x0bmeshproxy/1")


def test_the_control_of_the_malformed_ones_is_well_formed() -> None:
    assert client_hello_alpn(built(ALPN)) == [b"meshproxy/1"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01" + bytes(20000),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\xff\xff",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        built(ALPN + ALPN),
        built(ALPN, session=bytes(33)),
        built(ALPN, tail=b"x"),
        built(ALPN[:-1]),
        built(extension(16, b"\x00\x0d\x0bmeshproxy/1")),
        built(extension(16, b"\x00\x0c\x0cmeshproxy/1")),
        built(extension(16, b"\x00\x0d\x0bmeshproxy/1\x00")),
        built(extension(16, b"\x00\x00")),
        built(ALPN + extension(0, b"\x00\x06\x00\x00\x03a b")),
        built(ALPN + extension(0, b"\x00\x03\x00\x00\x00")),
        built(ALPN + extension(0, b"\x00\x08\x00\x00\x01a\x00\x00\x01b")),
        b"\x16\x03\x01\x00\x05\x01\x00\x10\x00x" + b"\x17\x03\x03\x00\x01x",
    ],
)
def test_a_malformed_hello_offers_nothing(data: bytes) -> None:
    found = client_hello(data)
    assert found is not None
    assert (found.server_name, found.alpn) == (b"", [])


@given(place=st.integers(0, 400), junk=st.binary(max_size=4), cut=st.integers(0, 4))
def test_a_mangled_hello_never_raises(place: int, junk: bytes, cut: int) -> None:
    data = built(ALPN + extension(0, b"\x00\x09\x00\x00\x06a.test"))
    data = data[:place] + junk + data[place + cut :]
    found = client_hello(data)
    assert found is None or isinstance(found.alpn, list)

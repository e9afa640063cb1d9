"""Regular expressions from manifests, matched in linear time: whoever may write a rule may not stop the proxy with it.

    "/(books|authors)/[0-9]+"  --Regex-->  positions 0..n, what each takes, which may follow   (Glushkov's automaton)
                                              |
    b"/books/7"  --matches-->  one set of positions a byte, as bits of one integer; sets already seen are remembered

A backtracking engine (Python's `re`) takes a second for `(a+)+$` and 25 bytes.  Here a byte costs one dictionary look-up when
its step has been taken before, and at most MAX_POSITIONS / 8 table look-ups when not, whatever pattern and text are.

The syntax is RE2's as far as rules on paths and headers need it:

    x . [a-z] [^/] \\d \\w \\s \\D \\W \\S \\xHH [[:alpha:]]     one byte           (?i) at the very start: any case
    xy  x|y  ( )  (?: )  (?P<name> )                            the group captures nothing
    x* x+ x? x{2} x{2,} x{2,5}  and lazy, with ?                how lazy makes no difference to whether it matches
    ^ $ \\A \\z                                                  the start and the end of the text

Refused, because no linear-time engine can have them: look-around, back-references, possessive and atomic groups; and \\b.
Text is bytes; a character beyond ASCII stands for its UTF-8 bytes (and cannot stand in [ ]).
"""

from __future__ import annotations

from typing import Final

MAX_PATTERN: Final = 1024  # characters
MAX_POSITIONS: Final = 256  # characters that a pattern can take, repetitions written out
MAX_REPEAT: Final = 1000  # in {m,n}, RE2's
MAX_DEPTH: Final = 50  # of groups
MAX_WORK: Final = 20_000  # steps of building, for repetitions of nothing
MAX_STEPS: Final = 4096  # remembered, about 0.5 MB; then they are forgotten, which costs time and no correctness

_BEGIN: Final = 256
_END: Final = 257
_ANY: Final = (1 << 256) - 1

# Kinds of nodes.
_SET: Final = 1
_CAT: Final = 2
_ALT: Final = 3
_REPEAT: Final = 4

_UNBOUNDED: Final = -1


def _range(low: int, high: int) -> int:
    return ((1 << (high - low + 1)) - 1) << low


_DIGIT: Final = _range(48, 57)
_ALPHA: Final = _range(65, 90) | _range(97, 122)
_WORD: Final = _DIGIT | _ALPHA | 1 << 95
_SPACE: Final = 1 << 32 | _range(9, 10) | _range(12, 13)
_CLASSES: Final = {
    "d": _DIGIT,
    "w": _WORD,
    "s": _SPACE,
    "D": _ANY & ~_DIGIT,
    "W": _ANY & ~_WORD,
    "S": _ANY & ~_SPACE,
}
_CONTROLS: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}
_POSIX: Final = {
    "alnum": _DIGIT | _ALPHA,
    "alpha": _ALPHA,
    "digit": _DIGIT,
    "lower": _range(97, 122),
    "upper": _range(65, 90),
    "punct": _range(33, 47) | _range(58, 64) | _range(91, 96) | _range(123, 126),
    "space": _SPACE | 1 << 11,
    "word": _WORD,
    "xdigit": _DIGIT | _range(65, 70) | _range(97, 102),
}


class _Node:
    def __init__(self, kind: int, taken: int = 0, parts: list[_Node] | None = None, low: int = 0, high: int = 0) -> None:
        self.kind = kind
        self.taken = taken  # SET: the symbols, as bits
        self.parts: list[_Node] = parts if parts is not None else []
        self.low = low  # REPEAT
        self.high = high


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.fold = False

    def parse(self) -> _Node:
        if self.text.startswith("(?i)"):
            self.fold = True
            self.at = 4
        node = self.alternatives(0)
        if self.at < len(self.text):
            raise ValueError(f"unmatched ')' at {self.at}")
        return node

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def alternatives(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise ValueError(f"groups are nested deeper than {MAX_DEPTH}")
        choices = [self.sequence(depth)]
        while self.peek() == "|":
            self.at += 1
            choices.append(self.sequence(depth))
        return choices[0] if len(choices) == 1 else _Node(_ALT, 0, choices)

    def sequence(self, depth: int) -> _Node:
        items: list[_Node] = []
        while self.peek() not in ("", "|", ")"):
            before = self.at
            items.extend(self.atom(depth))
            last = items[-1]
            if last.kind == _SET and last.taken >> 256:  # an anchor
                if self.peek() in ("*", "+", "?", "{"):
                    raise ValueError(f"an anchor is repeated at {self.at}: it is there or it is not")
                continue
            items[-1] = self.repeated(last, before)
        return items[0] if len(items) == 1 else _Node(_CAT, 0, items)

    def repeated(self, node: _Node, before: int) -> _Node:
        char = self.peek()
        if char == "*":
            low, high = 0, _UNBOUNDED
        elif char == "+":
            low, high = 1, _UNBOUNDED
        elif char == "?":
            low, high = 0, 1
        elif char == "{":
            low, high = self.counts()
        else:
            return node
        self.at += 1
        follows = self.peek()
        if follows == "?":  # lazy
            self.at += 1
        elif follows == "+":
            raise ValueError(f"a possessive repetition at {self.at} is not supported")
        if self.peek() in ("*", "+", "?", "{"):
            raise ValueError(f"a repetition of a repetition at {self.at}: put the inner one in parentheses")
        return _Node(_REPEAT, 0, [node], low, high)

    def counts(self) -> tuple[int, int]:
        """{m}, {m,}, {m,n}; leaves `at` on the closing brace."""
        end = self.text.find("}", self.at)
        parts = self.text[self.at + 1 : end].split(",") if end > 0 else []
        if not 1 <= len(parts) <= 2 or not _number(parts[0]) or (len(parts) == 2 and parts[1] and not _number(parts[1])):
            raise ValueError(f"'{{' at {self.at} begins no {{m}}, {{m,}} or {{m,n}}: a literal one is written \\{{")
        low = int(parts[0])
        high = low if len(parts) == 1 else int(parts[1]) if parts[1] else _UNBOUNDED
        if low > MAX_REPEAT or high > MAX_REPEAT:
            raise ValueError(f"a repetition at {self.at} of more than {MAX_REPEAT}")
        if high != _UNBOUNDED and high < low:
            raise ValueError(f"a repetition at {self.at} from {low} to {high}")
        self.at = end
        return low, high

    def atom(self, depth: int) -> list[_Node]:
        char = self.text[self.at]
        if char == "(":
            return [self.group(depth)]
        if char in ("*", "+", "?", "{"):
            raise ValueError(f"nothing to repeat at {self.at}")
        self.at += 1
        if char == ".":
            return [_Node(_SET, _ANY)]
        if char == "^":
            return [_Node(_SET, 1 << _BEGIN)]
        if char == "$":
            return [_Node(_SET, 1 << _END)]
        if char == "[":
            return [_Node(_SET, self.bracket())]
        if char == "\\":
            return [_Node(_SET, self.escape(False))]
        return [_Node(_SET, self.folded(1 << byte)) for byte in char.encode("utf-8")]

    def group(self, depth: int) -> _Node:
        opened = self.at
        self.at += 1
        if self.peek() == "?":
            rest = self.text[self.at : self.at + 4]
            if rest.startswith("?:"):
                self.at += 2
            elif rest.startswith(("?P<", "?<")) and not rest.startswith(("?<=", "?<!")):
                end = self.text.find(">", self.at)
                if end < 0:
                    raise ValueError(f"the name of the group at {opened} has no end")
                self.at = end + 1
            elif rest.startswith(("?=", "?!", "?<=", "?<!")):
                raise ValueError(f"look-around at {opened} is not supported: no linear-time engine has it")
            elif rest.startswith(("?P=", "?>", "?(")):
                raise ValueError(f"the group at {opened} is a back-reference, atomic or conditional: not supported")
            else:
                raise ValueError(f"the group at {opened} sets flags: only (?i) at the very start of a pattern is supported")
        node = self.alternatives(depth + 1)
        if self.peek() != ")":
            raise ValueError(f"the group at {opened} is not closed")
        self.at += 1
        return node

    def escape(self, bracket: bool) -> int:
        """After a backslash: the symbols it stands for."""
        char = self.peek()
        where = self.at - 1
        self.at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            return 1 << _CONTROLS[char]
        if char == "x":
            digits = self.text[self.at : self.at + 2]
            if len(digits) != 2 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                raise ValueError(f"\\x at {where} is not followed by two hexadecimal digits")
            self.at += 2
            return self.folded(1 << int(digits, 16))
        if not bracket and char == "A":
            return 1 << _BEGIN
        if not bracket and char in ("z", "Z"):
            return 1 << _END
        if char == "":
            raise ValueError("the pattern ends with a backslash")
        if char.isalnum() or char >= "\x80":
            what = "a back-reference" if char.isdigit() and char != "0" else f"\\{char}"
            raise ValueError(f"{what} at {where} is not supported")
        return 1 << ord(char)

    def bracket(self) -> int:
        opened = self.at - 1
        negated = self.peek() == "^"
        if negated:
            self.at += 1
        taken = 0
        first = True
        while self.peek() != "]" or first:
            first = False
            if self.at >= len(self.text):
                raise ValueError(f"'[' at {opened} is not closed")
            if self.text.startswith("[:", self.at):
                end = self.text.find(":]", self.at)
                name = self.text[self.at + 2 : end] if end > 0 else ""
                if name not in _POSIX:
                    raise ValueError(f"[:{name}:] at {self.at} is no class")
                taken |= _POSIX[name]
                self.at = end + 2
                continue
            low = self.member()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.member()
                if low & (low - 1) or high & (high - 1) or high < low:
                    raise ValueError(f"the range that ends at {self.at} goes from no smaller to a larger character")
                taken |= (high << 1) - low
            else:
                taken |= low
        self.at += 1
        taken = self.folded(taken)
        return _ANY & ~taken if negated else taken

    def member(self) -> int:
        char = self.peek()
        self.at += 1
        if char == "\\":
            return self.escape(True)
        if char == "" or char >= "\x80":
            raise ValueError(f"'[...]' takes ASCII characters only, found {char!r} at {self.at - 1}")
        return 1 << ord(char)

    def folded(self, taken: int) -> int:
        if self.fold:
            taken |= (taken & _range(65, 90)) << 32
            taken |= (taken & _range(97, 122)) >> 32
        return taken


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


class _Step:
    """A set of positions that took a byte, and where each next byte leads."""

    def __init__(self, positions: int, accepting: bool) -> None:
        self.positions = positions
        self.accepting = accepting
        self.onward: dict[int, _Step] = {}


class Regex:
    """full     the whole text must match; otherwise a beginning of it is enough (never a later part: anchored at the start)

    Raises ValueError saying where a pattern is wrong, or not supported, or too large."""

    def __init__(self, pattern: str, full: bool = False) -> None:
        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"the pattern has {len(pattern)} characters, more than {MAX_PATTERN}")
        self.pattern = pattern
        self.full = full
        self._takes = [0] * 258  # symbol -> the positions that take it
        self._follow: list[int] = []  # position -> the positions after it
        self._work = 0
        self._nullable, self._first, self._last = self._build(_Parser(pattern).parse())
        # The follow sets of eight positions at a time: a step costs a look-up for each eight, not for each one.
        self._chunks: list[list[int]] = [[0] * 256 for _ in range((len(self._follow) + 7) // 8)]
        for number, chunk in enumerate(self._chunks):
            for bits in range(1, 256):
                low = bits & -bits
                position = number * 8 + low.bit_length() - 1
                chunk[bits] = chunk[bits ^ low] | (self._follow[position] if position < len(self._follow) else 0)
        begin, end = self._takes[_BEGIN], self._takes[_END]
        begun = self._anchored(self._first, begin)
        self._begun = begun & self._last != 0 or self._nullable  # it matches the empty beginning
        self._empty = self._anchored(self._first, begin | end) & self._last != 0 or self._nullable  # ... and the empty text
        self._start = _Step(0, False)
        self._opening = self._first | self._after(begun)  # positions that may take the first byte
        self._states: dict[int, _Step] = {}
        self._steps = 0

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r}, full={self.full})"

    def matches(self, text: bytes) -> bool:
        """Whether `text` matches from its start on."""
        full = self.full
        if self._begun and not full:
            return True
        step = self._start
        for byte in text:
            onward = step.onward.get(byte)
            if onward is None:
                onward = self._advance(step, byte)
            step = onward
            if step.accepting and not full:
                return True
            if not step.positions:
                return False
        if not text:
            return self._empty
        if step.accepting:
            return True
        return self._anchored(self._after(step.positions), self._takes[_END]) & self._last != 0

    def _advance(self, step: _Step, byte: int) -> _Step:
        ahead = self._opening if step is self._start else self._after(step.positions)
        positions = ahead & self._takes[byte]
        self._steps += 1
        if self._steps > MAX_STEPS:
            for known in self._states.values():
                known.onward.clear()
            self._states.clear()
            self._start.onward.clear()
            self._steps = 1
        onward = self._states.get(positions)
        if onward is None:
            onward = self._states[positions] = _Step(positions, positions & self._last != 0)
        step.onward[byte] = onward
        return onward

    def _anchored(self, ahead: int, anchors: int) -> int:
        """The anchors that hold here, of the positions `ahead` and of those that only anchors are between."""
        held = ahead & anchors
        reached = held
        while reached:
            reached = self._after(reached) & anchors & ~held
            held |= reached
        return held

    def _after(self, positions: int) -> int:
        ahead = 0
        number = 0
        while positions:
            bits = positions & 255
            if bits:
                ahead |= self._chunks[number][bits]
            positions >>= 8
            number += 1
        return ahead

    # -- building (nullable, first positions, last positions)

    def _build(self, node: _Node) -> tuple[bool, int, int]:
        self._work += 1
        if self._work > MAX_WORK:
            raise ValueError("the pattern is too large once its repetitions are written out")
        kind = node.kind
        if kind == _SET:
            return self._position(node.taken)
        if kind == _CAT:
            nullable, first, last = True, 0, 0
            for part in node.parts:
                nullable, first, last = self._joined((nullable, first, last), self._build(part))
            return nullable, first, last
        if kind == _ALT:
            nullable, first, last = False, 0, 0
            for part in node.parts:
                found = self._build(part)
                nullable, first, last = nullable or found[0], first | found[1], last | found[2]
            return nullable, first, last
        if kind == _REPEAT:
            return self._repeat(node)
        return True, 0, 0

    def _position(self, taken: int) -> tuple[bool, int, int]:
        number = len(self._follow)
        if number >= MAX_POSITIONS:
            raise ValueError(f"the pattern takes more than {MAX_POSITIONS} characters once its repetitions are written out")
        self._follow.append(0)
        bit = 1 << number
        for symbol in range(258):
            if taken >> symbol & 1:
                self._takes[symbol] |= bit
        return False, bit, bit

    def _joined(self, left: tuple[bool, int, int], right: tuple[bool, int, int]) -> tuple[bool, int, int]:
        self._link(left[2], right[1])
        first = left[1] | right[1] if left[0] else left[1]
        last = left[2] | right[2] if right[0] else right[2]
        return left[0] and right[0], first, last

    def _repeat(self, node: _Node) -> tuple[bool, int, int]:
        nullable, first, last = True, 0, 0
        inner = node.parts[0]
        copies = node.low if node.high == _UNBOUNDED else node.high
        for number in range(max(copies, 1) if node.high == _UNBOUNDED else copies):
            one = self._build(inner)
            if number >= node.low:
                one = (True, one[1], one[2])
            if node.high == _UNBOUNDED and number >= copies - 1:  # the last copy comes round again
                self._link(one[2], one[1])
            nullable, first, last = self._joined((nullable, first, last), one)
        return nullable, first, last

    def _link(self, last: int, first: int) -> None:
        while last:
            low = last & -last
            self._follow[low.bit_length() - 1] |= first
            last ^= low

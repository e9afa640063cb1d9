"""When one match fits all that another one fits: found where it is certain, never where it is not."""

from __future__ import annotations

import random
from itertools import product

import pytest
from routing_objects import goes_to, group, http_route, matching_split, service_entry, to, told

from control.resources.attach import group_match
from control.resources.cover import covers
from control.resources.routegroup import RouteGroupMatch
from control.resources.routing import EXACT, PREFIX, REGEX, REGEX_START, RequestMatch, StringMatch
from control.store.store import Object
from meshproxy.policy.match import Match, Value, parse_query
from meshproxy.wire.message import Field, Head, add_field

HOW = {"=": EXACT, "/": PREFIX, "~": REGEX, "^": REGEX_START}


def match(path: str = "", methods: str = "", headers: str = "", query: str = "") -> RequestMatch:
    """ "~/a.*", "GET HEAD", "x=1 y~.*" """

    def values(text: str) -> tuple[StringMatch, ...]:
        parts = [word.partition("~" if "~" in word else "=") for word in text.split()]
        return tuple(StringMatch(HOW[mark], value, name) for name, mark, value in parts)

    return RequestMatch(
        StringMatch(HOW[path[0]], path[1:]) if path else None, tuple(methods.split()), values(headers), values(query)
    )


COVERED = [
    (match(), match("=/a", "GET", "x=1")),
    (match("~/.*"), match("//a")),
    (match("~/.*"), match("=/a/b")),
    (match("~.*"), match("~/[ab]")),
    (match("~.*"), match("~/a|b")),
    (match("~/.*"), match("~/a.*")),
    (match("//a"), match("//a/b")),
    (match("//a"), match("=/a")),
    (match("//a"), match("=/a/b")),
    (match("^/a"), match("^/a/b")),
    (match("^/a"), match("^/ab")),
    (match("^^/a"), match("^/a/[0-9]+")),
    (match("^/a"), match("~/a/b.*")),
    (match("^/a"), match("^^/ab+c")),
    (match(methods="GET HEAD"), match(methods="GET")),
    (match(methods="GET"), match("=/a", "GET", "x=1")),
    (match(headers="x=1"), match(headers="x=1 y=2")),
    (match(query="q=1"), match(query="p~.* q=1")),
]
NOT_COVERED = [
    (match("=/a"), match()),
    (match("~/.*"), match()),
    (match("~/.*"), match("~[*]")),
    (match("~/.*"), match("~/a|[*]")),
    (match("~/.*"), match("~/?[*]")),
    (match("~/.*"), match("~/{0,1}[*]")),
    (match("~/a.*"), match("//a")),
    (match("//a"), match("=/ab")),
    (match("//a"), match("//ab")),
    (match("^/a"), match("^/b/a")),
    (match("^/ab"), match("^/ab*")),
    (match("^/ab"), match("^/ab?c")),
    (match("^/ab"), match("^/ab|/c")),
    (match("^/a$"), match("^/a$/b")),
    (match("^/a"), match("^/.*")),
    (match("^/a"), match("^(?i)/A")),
    (match("~/a"), match("~/a/b")),
    (match("~/a"), match("^/a")),
    (match(methods="GET"), match(methods="GET HEAD")),
    (match(methods="GET"), match()),
    (match(headers="x=1"), match(headers="x~.*")),
    (match(headers="x=1 y=2"), match(headers="x=1")),
    (match(headers="x=1"), match(query="x=1")),
]


@pytest.mark.parametrize(("wide", "narrow"), COVERED)
def test_what_covers_another_match_is_found(wide: RequestMatch, narrow: RequestMatch) -> None:
    assert covers(wide, narrow)


@pytest.mark.parametrize(("wide", "narrow"), NOT_COVERED)
def test_what_is_not_certain_is_not_said(wide: RequestMatch, narrow: RequestMatch) -> None:
    assert not covers(wide, narrow)


PATHS = ["*", "", "/", "/a", "/a/", "/ab", "/a/b", "/abc", "/abbc", "/b/a", "/a/7", "/a/b/c", "/A", "/c", "/a$/b"]
METHODS = ["GET", "HEAD", "POST"]
FIELDS: list[dict[str, str]] = [{}, {"x": "1"}, {"x": "1", "y": "2"}, {"x": "2"}]
QUERIES = ["", "?q=1", "?q=1&p=2", "?x=1"]


def requests() -> list[Head]:
    made = []
    for path, method, fields, query in product(PATHS, METHODS, FIELDS, QUERIES):
        head = Head()
        head.method, head.path, head.authority = method.encode(), (path + query).encode(), b"web"
        for name, value in fields.items():
            add_field(head, Field(name.encode(), value.encode()))
        made.append(head)
    return made


def as_asked(one: RequestMatch) -> Match:
    """As a proxy asks it."""

    def value(part: StringMatch) -> Value:
        return Value([*HOW.values()].index(part.how), part.value, part.name)

    return Match(
        0,
        value(one.path) if one.path is not None else None,
        tuple(method.encode() for method in one.methods),
        tuple(map(value, one.headers)),
        tuple(map(value, one.query)),
    )


def test_whatever_fits_a_match_fits_each_one_that_is_said_to_cover_it() -> None:
    chance = random.Random(7)
    paths = sorted({one.path for pair in (*COVERED, *NOT_COVERED) for one in pair if one.path is not None}, key=str)
    others = [match(), match(methods="GET"), match(methods="GET HEAD"), match(headers="x=1"), match(headers="x=1 y=2")]
    others += [match(headers="x~[12]"), match(query="q=1"), match(query="p~.* q=1")]
    matches = [RequestMatch(path, one.methods, one.headers, one.query) for path in [None, *paths] for one in others]
    fitting = {}
    heads = requests()
    for one in matches:
        asked = as_asked(one)
        fitting[one] = {
            number
            for number, head in enumerate(heads)
            if not asked.misfit(head, head.path.partition(b"?")[0], parse_query(head.path))
        }
    said = 0
    for wide, narrow in (chance.sample(matches, 2) for _ in range(20_000)):
        if covers(wide, narrow):
            said += 1
            assert fitting[narrow] <= fitting[wide], (wide, narrow)
    assert said > 300


@pytest.mark.parametrize(
    ("objects", "shadowed"),
    [
        (
            [
                http_route(
                    "r", to("web-v1", "{path: {type: RegularExpression, value: '/.*'}}"), to("web-v2", "{path: {value: /a}}")
                )
            ],
            "HTTPRoute r",
        ),
        (
            [
                group("g1", "{methods: [GET, HEAD]}"),
                group("g2", "{methods: [GET]}"),
                matching_split("a", "g1", web_v1=1),
                matching_split("b", "g2", web_v2=1),
            ],
            "TrafficSplit b",
        ),
        (
            [
                group("g1", "{pathRegex: /a}"),
                group("g2", "{pathRegex: /a/b}"),
                matching_split("a", "g1", web_v1=1),
                matching_split("b", "g2", web_v2=1),
            ],
            "TrafficSplit b",
        ),
    ],
)
def test_a_rule_that_a_wider_one_before_it_covers_is_told_and_left_out(objects: list[Object], shadowed: str) -> None:
    entry = service_entry(*objects)
    assert goes_to(entry, "GET /a/b") == "web-v1"
    assert [line.partition(":")[0] for line in told(*objects) if "no effect" in line] == [shadowed]
    assert entry.matches is not None


def test_a_wider_split_that_comes_after_a_narrower_one_shadows_nothing() -> None:
    objects = [
        group("g1", "{pathRegex: /a}"),
        group("g2", "{pathRegex: /a/b}"),
        matching_split("b", "g1", web_v1=1),
        matching_split("a", "g2", web_v2=1),
    ]
    entry = service_entry(*objects)
    assert [goes_to(entry, f"GET {path}") for path in ("/a/b", "/a")] == ["web-v2", "web-v1"]
    assert [line for line in told(*objects) if "no effect" in line] == []


def test_a_group_match_in_full_covers_its_own_path_only() -> None:
    whole = group_match(RouteGroupMatch("m", (), "/a", ()), True)
    assert not covers(whole, group_match(RouteGroupMatch("m", (), "/a/b", ()), True))

"""A trail as text: one section a decision, in the order in which they are taken.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd
from typing import Any

from meshproxy.cli.common import columns

INDENT = " " * 11


def show(trail: dict[str, Any]) -> str:
    caller = trail["caller"]
    asked = trail["asked"]
    lines = [f"{asked['method']} {asked['url']}", *(f"{INDENT}{name}: {value}" for name, value in asked["headers"])]
    lines.append(line("from", f"{caller.get('pod', '')} in {caller['namespace']}, {caller['identity']}".lstrip()))
    if caller.get("others"):
        lines.append(f"{INDENT}(its state; {caller['others']} more of this workload may see it otherwise: --from pod/NAME)")
    if trail.get("workers"):
        lines.append(f"{INDENT}(the state of worker {trail['worker']} of {trail['workers']}; each has its own)")
    name = trail.get("name")
    if name is not None:
        lines.append(line("name", name.get("service") or name.get("address") or name["kind"]))
        lines.append(INDENT + name["how"])
        if name.get("note"):
            lines.append(INDENT + name["note"])
    lines += rules(trail)
    lines += conduct(trail)
    lines += backends(trail)
    lines += access(trail)
    lines.append(line("outcome", outcome(trail)))
    return "\n".join(lines)


def line(title: str, text: str) -> str:
    return f"{title:<{len(INDENT)}}{text}".rstrip()


def indented(text: str) -> list[str]:
    return [INDENT + one for one in text.splitlines()]


# ---------------------------------------------------------------- the rule


def rules(trail: dict[str, Any]) -> list[str]:
    if "name" not in trail or trail["name"]["kind"] != "service":
        return []
    if "matches" not in trail:
        return [line("route", "the Service's own: no routes are attached to it")]
    lines = [line("route", trail.get("rule") or "the Service's own: no match fits")]
    rows = []
    for one in trail["matches"]:
        mark = "-->" if one["taken"] else "   "
        rows.append((mark, one["rule"], one["match"], "fits" if one["taken"] else one["why"]))
    lines += indented(columns(("", "RULE", "MATCH", "WHY"), rows, headers=False))
    if trail.get("matches_left_out"):
        lines.append(f"{INDENT}and {trail['matches_left_out']} more matches")
    for number, one in enumerate(trail.get("filters") or ()):
        lines.append(line("filters" if not number else "", one))
    return lines


# ---------------------------------------------------------------- times, retries, faults


def conduct(trail: dict[str, Any]) -> list[str]:
    times, retry = trail.get("times"), trail.get("retry")
    if times is None or retry is None:
        return []
    on = " (goes on with it, less what was used)" if times["propagated"] else ""
    said = [f"request {seconds(times['request_s'])}{on}"] if times["request_s"] else []
    said += [f"each try {seconds(times['try_s'])}"] if times["try_s"] else []
    said += [f"answer begins within {seconds(times['response_start_s'])}"] if times["response_start_s"] else []
    said += [f"answer ends within {seconds(times['response_s'])}"] if times["response_s"] else []
    said += [f"idle {seconds(times['idle_s'])}"] if times["idle_s"] else []
    said += [f"the request's own deadline {times['expected_ms']} ms"] if times["expected_ms"] else []
    said += [f"the call's own deadline {times['grpc_timeout']}"] if times["grpc_timeout"] else []
    lines = [line("timeouts", ", ".join(said) or "none")]
    budget = retry["budget"]
    if retry["attempts"]:
        lines.append(line("retries", f"up to {retry['attempts']}, for {', '.join(retry['conditions']) or 'nothing'}"))
        kind = "idempotent" if retry["idempotent"] else "not idempotent: tried again only where nobody can have acted on it"
        if retry["grpc_codes"] and not retry["idempotent"]:
            kind += ", or after a declared gRPC code"
        if retry["any_method"] and not retry["idempotent"]:
            kind += ", or after such an answer"
        lines.append(f"{INDENT}{trail['asked']['method']} is {kind}; a body up to {retry['body_up_to'] // 1024} KiB")
        if retry["backoff_s"]:
            lines.append(f"{INDENT}at least {seconds(retry['backoff_s'])} between two tries")
        lines.append(
            f"{INDENT}budget: {budget['retries_left']} retries left now ({budget['ratio']:g} a request and"
            f" {budget['floor_per_second']:g} a second, over {seconds(budget['ttl_s'])})"
        )
    else:
        lines.append(line("retries", "none"))
    fault = trail.get("fault")
    if fault is not None:
        lines += faults(fault)
    for mirror in trail.get("mirrors") or ():
        lines.append(line("mirror", f"{percent(mirror['share'])} of such requests are copied to {mirror['backend']}"))
    return lines


def faults(fault: dict[str, Any]) -> list[str]:
    if not fault["matches"]:
        return [line("faults", f"declared for requests with {fault['header']}: not this one")]
    said = []
    if fault["delay_share"]:
        said.append(f"{percent(fault['delay_share'])} delayed by {seconds(fault['delay_s'])}")
    if fault["abort_share"]:
        said.append(f"{percent(fault['abort_share'])} answered with {fault['abort_status']}")
    return [line("faults", ", ".join(said) or "none")]


# ---------------------------------------------------------------- backends


def backends(trail: dict[str, Any]) -> list[str]:
    found = trail.get("backends")
    if not found:
        return []
    split = trail["split"]
    lines = []
    if len(found) > 1:
        lines.append(line("shares", share_line(split, found)))
    for number, one in enumerate(found):
        chosen = (
            "" if split["backend"] in (None, -1) or len(found) == 1 else "  <-- this key" if split["backend"] == number else ""
        )
        left = f"; {one['left']} left in the block" if one["left"] is not None and sum(split["left"]) else ""
        what = f"{one['name']}  {percent(one['share'])}{left}{chosen}"
        lines.append(line("backend", what))
        lines += [INDENT + text for text in about(one)]
        if one["endpoints"]:
            lines += indented(endpoints(one))
        if one["left_out"]:
            lines.append(f"{INDENT}and {one['left_out']} more endpoints")
    return lines


def share_line(split: dict[str, Any], found: list[dict[str, Any]]) -> str:
    sticky = split["sticky"]
    if sticky is not None and sticky["key"] is not None:
        at = split["backend"]
        to = found[at]["name"] if at is not None and at >= 0 else "nobody"
        return f"sticky by {sticky['by']}: {sticky['key']!r} is always with {to}, while the weights are these"
    left = sum(split["left"])
    block = f"{left} draws left in this block" if left else "the next request begins a new block"
    without = f"sticky by {sticky['by']}, which this request has not: drawn; " if sticky is not None else ""
    divisor = gcd(*split["weights"]) or 1
    return f"{without}weights {' : '.join(str(weight // divisor) for weight in split['weights'])}; {block}"


def about(one: dict[str, Any]) -> Iterable[str]:
    balancer = one["balancer"]
    said = [f"balancer {balancer['name']}"]
    if "key" in balancer:
        said.append(f"key {balancer['key']}" + (f" = {one['key']}" if one.get("key") is not None else ", which this has not"))
    if "prefers_zone" in balancer:
        said.append(f"prefers zone {balancer['prefers_zone']}")
    if "slow_start_s" in balancer:
        said.append(f"slow start {seconds(balancer['slow_start_s'])}")
    if "breaker" in balancer:
        said.append(f"breaker: {one['ejected']} of at most {one['may_be_ejected']} out")
        if one["probe_due"]:
            said.append("the next request is a probe")
    yield ", ".join(said)
    if one["problem"]:
        yield (
            "its share is answered here" if one["share"] else "it has no share; one would be answered here"
        ) + f": {problem(one)}"
    yield from one["filters"]


def problem(one: dict[str, Any]) -> str:
    """Why a backend's share is answered here, and of whose making that is."""
    why = one.get("why")
    return f"{one['problem']} ({why})" if why else str(one["problem"])


def endpoints(one: dict[str, Any]) -> str:
    requests = one["unit"] == "requests"
    header = ["ENDPOINT", "COST", "EWMA", "PENDING", "CHANCE", "STATE"]
    weights = any(item["weight"] != 1.0 for item in one["endpoints"])
    zones = any(item["zone"] for item in one["endpoints"])
    cold = any(item["warmth"] < 1.0 for item in one["endpoints"])
    header += [*(["WEIGHT"] if weights else []), *(["ZONE"] if zones else []), *(["WARM"] if cold else [])]
    rows = []
    for item in one["endpoints"]:
        row: list[object] = [
            f"{item['address']}:{item['port']}" + (" <-- this key" if item["keyed"] else ""),
            f"{item['cost']:g}" if requests else milliseconds(item["cost"]),
            milliseconds(item["ewma_ms"]),
            item["pending"],
            "-" if item["chance"] is None else percent(item["chance"]),
            standing(item),
        ]
        row += [*([f"{item['weight']:g}"] if weights else []), *([item["zone"] or "-"] if zones else [])]
        rows.append(row + ([percent(item["warmth"])] if cold else []))
    table: str = columns(header, rows)
    return table


def standing(item: dict[str, Any]) -> str:
    state = item["state"]
    if state["name"] == "ejected":
        return f"ejected ({state['why']}), probe in {seconds(state['probe_in_s'])}"
    if state["why"]:
        return f"{state['name']} ({state['why']})"
    failures = item.get("breaker", {}).get("failures_in_a_row", 0)
    return f"ready, {failures} failures in a row" if failures else "ready" if item["connections"] else "ready, not connected"


# ---------------------------------------------------------------- the far side


def access(trail: dict[str, Any]) -> list[str]:
    """Endpoints with the same decision share a line: mostly all of them do."""
    groups: dict[str, list[str]] = {}
    rules: dict[str, list[str]] = {}
    for backend in trail.get("backends") or ():
        for item in backend["endpoints"]:
            far = item.get("access")
            if far is None:
                verdict = "not in the mesh: plaintext, nobody asks" if not item["mesh_port"] else "not asked"
            else:
                verdict = decision(far)
                rules.setdefault(verdict, why_not(far))
            groups.setdefault(verdict, []).append(f"{item['address']}:{item['port']}")
    lines = []
    for number, (verdict, asked) in enumerate(groups.items()):
        places = list(dict.fromkeys(asked))  # a pod may stand in several backends
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        lines.append(line("access" if not number else "", f"{verdict}  ({', '.join(places[:3])}{more})"))
        lines += [INDENT + "  " + one for one in rules.get(verdict, [])]
    return lines


def decision(far: dict[str, Any]) -> str:
    if "problem" in far:
        return f"cannot be told: {far['problem']}"
    if not far["allowed"]:
        return f"denied: {far['status']} {far['reason']} ({far['text']})"
    said: str = "allowed by " + {"mode": f"the mode {far['mode']}", "probe": "being a health probe"}.get(far["by"], far["by"])
    if not far["selected"]:
        said += "; no TrafficTarget selects the pod"
    if "would_be_denied" in far:
        said += f"; audit: would be denied, {far['would_be_denied']['reason']}"
    if far["path"]:
        said += f"; the app gets {far['path']}"
    limit = far["limit"]
    if limit is not None:
        said += f"; {limit['in_flight']} of {limit['at_once']} at once"
    return said


def why_not(far: dict[str, Any]) -> list[str]:
    found = [f"{one['name']}: {one['why_not'] or 'allows it'}" for one in far.get("rules", [])]
    if far.get("rules_left_out"):
        found.append(f"and {far['rules_left_out']} more")
    return found


# ---------------------------------------------------------------- words


def outcome(trail: dict[str, Any]) -> str:
    found = trail["outcome"]
    here = "answered by the caller's sidecar:"
    if found["kind"] == "answered":
        return f"{here} {found['status']} {found['reason']} ({found['text']})" if found["text"] else f"{here} {found['reason']}"
    if found["kind"] == "redirect":
        return f"{here} {found['status']}, location: {found['location']}"
    if found["kind"] == "outside":
        return str(found["text"])
    denied = {item["access"]["reason"] for item in asked_of(trail) if item["access"].get("allowed") is False}
    allowed = any(item["access"].get("allowed", True) for item in asked_of(trail))
    if denied and not allowed:
        return f"sent, and refused where it arrives: {', '.join(sorted(denied))}"
    empty = [one for one in trail.get("backends") or () if one["problem"] and one["share"] > 0.0]
    if trail.get("split", {}).get("backend") is not None:
        empty = []
    said = [f"{percent(one['share'])} {here} {problem(one)}" for one in empty]
    said += [f"some endpoints refuse it: {', '.join(sorted(denied))}"] if denied else []
    return "; ".join(["sent", *said])


def served(trail: dict[str, Any]) -> bool:
    """Would somebody take the request: no refusal of the caller's sidecar, nor of all endpoints that were asked?"""
    asked = asked_of(trail)
    taken = not asked or any(item["access"].get("allowed", True) for item in asked)
    return trail["outcome"]["kind"] != "answered" and taken


def asked_of(trail: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for backend in trail.get("backends") or () for item in backend["endpoints"] if "access" in item]


def percent(share: float) -> str:
    return f"{share * 100:.4g}%"


def seconds(value: float) -> str:
    return f"{value * 1000:.4g}ms" if value < 1.0 else f"{value:.4g}s"


def milliseconds(value: float) -> str:
    return f"{value:.3g}ms" if value < 999.5 else f"{value / 1000:.3g}s"

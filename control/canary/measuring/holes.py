r"""What stands in a hole of a query, as much of Go's templates as queries need: a name, a variable, printf, and pipes.

    route=~"{{ printf "kube_%s__%s" namespace service }}"      {{ target | printf "%s-%s" namespace }}
               command: word or text, then its operands            what a command says is the last operand of the next one

Anything else is an error that says what may be written: a query that is not the one meant must not be asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from control.canary.declared.fields import SpecError

_TOKEN = re.compile(r'\s*(?:(?P<quoted>"(?:[^"\\\n]|\\.)*")|`(?P<raw>[^`]*)`|(?P<pipe>\|)|(?P<word>[^\s|"`()]+))')
_VARIABLE = re.compile(r"variables\.([A-Za-z_]\w*)\Z")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_VERB = re.compile(r"%(.?)", re.DOTALL)

Value = str | int


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Hole:
    """`inside`: the text between the braces.  `words`: the names that stand for something, `variables`: the metric's own."""

    inside: str
    words: Mapping[str, str]
    variables: Mapping[str, str]

    def filled(self) -> str:
        """What the hole stands for.  Raises SpecError."""
        commands = _commands(self.inside)
        if commands is None or not all(commands):
            raise self._not_understood()
        said: Value | None = None
        for command in commands:
            said = self._said(command, said)
        return str(said)

    def _said(self, command: list[_Token], before: Value | None) -> Value:
        """`before`: what the command in front of the pipe said, None for the first one."""
        first, operands = command[0], command[1:]
        if first == _Token("printf"):
            if not operands or not operands[0].quoted:
                raise self._error("printf wants a format in quotes")
            values = [self._operand(one) for one in operands[1:]]
            return self._printf(operands[0].text, values if before is None else [*values, before])
        if first == _Token("index"):
            if before is not None or len(operands) != 2 or operands[0] != _Token("variables") or not operands[1].quoted:
                raise self._not_understood()
            return self._variable(operands[1].text)
        said = self._operand(first)
        if operands:
            raise self._not_understood()
        if before is not None:
            raise self._error(f"{first.text} takes nothing from a pipe, printf does")
        return said

    def _operand(self, token: _Token) -> Value:
        if token.quoted:
            return token.text
        if token.text in self.words:
            return self.words[token.text]
        if found := _VARIABLE.match(token.text):
            return self._variable(found[1])
        if _NUMBER.match(token.text):
            return int(token.text)
        raise self._not_understood()

    def _variable(self, name: str) -> str:
        if name not in self.variables:
            raise SpecError(f"the query asks for {{{{ {self.inside} }}}}, and the metric's templateVariables have no {name!r}")
        return self.variables[name]

    def _printf(self, form: str, values: list[Value]) -> str:
        places = [verb for verb in _VERB.findall(form) if verb != "%"]
        if wrong := [verb for verb in places if verb not in ("s", "v", "d")]:
            raise self._error(f"printf has %{wrong[0]}, expected %s, %v, %d or %%")
        if len(places) != len(values):
            raise self._error(f"printf has {len(places)} places for {len(values)} values")
        for verb, value in zip(places, values, strict=True):
            if verb == "d" and not isinstance(value, int):
                raise self._error(f"%d wants a whole number, found {value!r:.60}")
            if verb == "s" and not isinstance(value, str):
                raise self._error(f"%s wants text, found {value}")
        left = iter(values)
        return _VERB.sub(lambda verb: "%" if verb[1] == "%" else str(next(left)), form)

    def _error(self, what: str) -> SpecError:
        return SpecError(f"the query asks for {{{{ {self.inside:.120} }}}}: {what}")

    def _not_understood(self) -> SpecError:
        names = ", ".join(self.words)
        return SpecError(
            f"the query asks for {{{{ {self.inside:.60} }}}}; expected one of {names}, or variables.<name>, or printf of them"
        )


def _commands(inside: str) -> list[list[_Token]] | None:
    """The tokens of each command; None if something is no token."""
    found: list[list[_Token]] = [[]]
    at, inside = 0, inside.rstrip()
    while at < len(inside):
        token = _TOKEN.match(inside, at)
        if token is None:
            return None
        at = token.end()
        if token["pipe"]:
            found.append([])
        elif token["quoted"] is not None:
            try:  # Go's escapes that a query needs are JSON's
                found[-1].append(_Token(json.loads(token["quoted"]), True))
            except ValueError:
                return None
        else:
            found[-1].append(_Token(token["raw"], True) if token["raw"] is not None else _Token(token["word"]))
    return found

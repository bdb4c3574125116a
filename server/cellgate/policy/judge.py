"""Judges code by a policy: reads it, asks the rules what each fact is about, and the policy what it makes of that.

Never executes anything of what it is given. Raises nothing but PolicyError, which is a denial; how long it may take
is for whoever calls to bound, from outside. The wall is the sandbox and not this: what is allowed here may still do
harm there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cellgate.errors import PolicyError
from cellgate.policy import python, shell, syntax
from cellgate.policy.facts import Bounds, Kind, Place, Reading, Seen
from cellgate.policy.names import MODULES
from cellgate.policy.policies import Policy
from cellgate.policy.python import nesting
from cellgate.policy.quick import is_silent
from cellgate.policy.rules import RULES, rules_of
from cellgate.policy.verdicts import MAX_FINDINGS, Finding, Metrics, Severity, Verdict
from cellgate.policy.words import COMPUTING

__all__ = ["CODELESS", "judge", "judge_message"]

Reader = Callable[[str, Bounds], Reading]
READERS: dict[str, Reader] = {"python": python.read, "bash": shell.read, **syntax.READERS}

# Messages whose code, if they have any, is not run: every policy allows them.
CODELESS = frozenset(
    (
        *("kernel_info_request", "history_request", "is_complete_request", "comm_info_request", "usage_request"),
        *("interrupt_request", "shutdown_request", "input_reply"),
    )
)
MAX_SEEN_CHARS = 80  # of a name in a sentence
MAX_PARTS = 1000  # of one message that are code; people send none or a few
_START = Place(1, 0, 1, 0)


def judge(code: str, language: str, policy: Policy) -> Verdict:
    """What a policy thinks of a cell. Raises PolicyError when that cannot be told, for which read: denied."""
    if policy.is_off:
        return Verdict(policy=policy.name)
    findings, metrics = _judge_part(code, language, policy, "code")
    return _verdict(findings, metrics, policy)


def judge_message(msg_type: str, content: Mapping[str, object], policy: Policy, language: str = "python") -> Verdict:
    """What a policy thinks of a request as Jupyter's clients send it: all code in it, and whether such may be sent at
    all. Raises PolicyError, also for content that has no shape."""
    if policy.is_off or msg_type in CODELESS:
        return Verdict(policy=policy.name)
    if policy.message_types is not None and msg_type not in policy.message_types:
        severity = policy.severity("message_type")
        found = [_finding("message_type", severity, _START, _short(msg_type), policy)] if severity else []
        if severity is Severity.DENY:
            return _verdict(found, Metrics(), policy)
    else:
        found = []
    total = Metrics()
    for part, code in _parts(msg_type, content):
        findings, metrics = _judge_part(code, language, policy, part)
        found.extend(findings)
        total = Metrics(
            total.code_bytes + metrics.code_bytes, total.nodes + metrics.nodes, max(total.depth, metrics.depth)
        )
    return _verdict(found, total, policy)


def _parts(msg_type: str, content: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The code in a message: what it is called there, and what it says."""
    if msg_type in ("execute_request", "complete_request", "inspect_request"):
        yield "code", _string(content.get("code", ""), "code")
        expressions = content.get("user_expressions") or {}
        if not isinstance(expressions, Mapping) or len(expressions) > MAX_PARTS:
            raise PolicyError(f"user_expressions is no object of at most {MAX_PARTS} expressions")
        for name, expression in expressions.items():
            yield f"user_expressions.{_short(str(name))}", _string(expression, "an expression")
    elif msg_type == "debug_request":
        arguments = content.get("arguments") or {}
        if not isinstance(arguments, Mapping):
            raise PolicyError("the arguments of a debug_request are no object")
        for name in ("expression", "code", "value", "text"):  # evaluate, dumpCell, setVariable, completions
            if isinstance(value := arguments.get(name), str):
                yield f"arguments.{name}", value
        points = arguments.get("breakpoints") or []
        for number, point in enumerate(points[:MAX_PARTS] if isinstance(points, list) else ()):
            for name in ("condition", "hitCondition", "logMessage"):
                if isinstance(point, Mapping) and isinstance(value := point.get(name), str):
                    yield f"arguments.breakpoints.{number}.{name}", value


def _judge_part(code: str, language: str, policy: Policy, part: str) -> tuple[list[Finding], Metrics]:
    size = len(code.encode("utf-8", "surrogatepass"))
    if size > policy.limits.code_bytes:
        seen = Seen(Kind.LARGE, "code_bytes", _START, str(size))
        return list(_findings([seen], policy, part)), Metrics(code_bytes=size)
    if language == "python":
        depth = nesting(code)
        if is_silent(code, policy, depth):
            return [], Metrics(code_bytes=size, depth=depth)
    reader = READERS.get(language)
    if reader is None:
        severity = policy.severity("unread")
        found = [_finding("unread", severity, _START, _short(language), policy, part)] if severity else []
        return found, Metrics(code_bytes=size)
    try:
        reading = reader(code, policy.limits.bounds)
        findings = list(_findings(reading.facts, policy, part))
    except Exception as error:
        raise PolicyError(f"{type(error).__name__} while reading {part}") from error
    return findings, Metrics(size, reading.nodes, reading.depth)


def _findings(facts: tuple[Seen, ...] | list[Seen], policy: Policy, part: str) -> Iterator[Finding]:
    """One for each rule and line: what stands on a line once more says nothing new."""
    told: set[tuple[str, int]] = set()
    for seen in facts:
        for rule in _rules(seen, policy):
            severity = policy.severity(rule)
            if severity is not None and (rule, seen.place.line) not in told:
                told.add((rule, seen.place.line))
                yield _finding(rule, severity, seen.place, _short(_told(seen)), policy, part, seen.language)


def _rules(seen: Seen, policy: Policy) -> Iterator[str]:
    """Those that the fact is about, and those of the policy's own lists."""
    rules = rules_of(seen)
    yield from rules
    if (seen.kind in (Kind.IMPORT, Kind.STAR_IMPORT) and not policy.allows_module(seen.name)) or (
        seen.kind is Kind.USE and seen.language == "python" and _is_strange(seen.name, policy)
    ):
        yield "module"
    elif seen.kind is Kind.MAGIC and not policy.allows_magic(seen.name):
        says_more = any(policy.severity(rule) is Severity.DENY for rule in rules)  # what it does
        yield from () if says_more else ("magic",)
    if seen.kind is Kind.USE and policy.denies_name(seen.name):
        yield "name"
    if seen.kind is Kind.ATTRIBUTE and policy.denies_name("." + seen.name):
        yield "name"


def _is_strange(name: str, policy: Policy) -> bool:
    """Whether it is of a module that may not be loaded, however it was come by: `queue.threading.Thread`."""
    root = name.partition(".")[0]
    return root in MODULES and not policy.allows_module(name)


def _finding(
    rule: str, severity: Severity, place: Place, seen: str, policy: Policy, part: str = "code", language: str = ""
) -> Finding:
    row = RULES[rule]
    message = f"{seen} {row.says}"
    hint = row.hint or _hint(rule, policy, language)
    return Finding(rule, severity, *place, seen=seen, message=message, hint=hint, part=part)


# One list of a policy is for all languages: of it, what is no module of the one that is spoken.
_OF_OTHERS, _OF_PYTHON = COMPUTING - MODULES, frozenset(MODULES) - COMPUTING


def _hint(rule: str, policy: Policy, language: str) -> str:
    """What would pass, where only the policy knows."""
    if rule == "module" and policy.allow_modules is not None:
        return f"these would pass: {_some(policy.allow_modules - (_OF_OTHERS if language == 'python' else _OF_PYTHON))}"
    if rule == "magic" and policy.allow_magics is not None:
        return f"these would pass: {_some(policy.allow_magics)}"
    if rule == "message_type" and policy.message_types is not None:
        return f"these would pass: {_some(policy.message_types)}"
    return f"the policy {policy.name!r} says what would pass"


def _some(names: frozenset[str]) -> str:
    few = sorted(names, key=lambda name: (name.startswith("_"), name.lower()))[:12]
    return ", ".join(few or ["none"]) + (f" and {len(names) - len(few)} more" if len(names) > len(few) else "")


def _told(seen: Seen) -> str:
    """What a sentence calls it."""
    if seen.kind in (Kind.TEXT, Kind.LARGE, Kind.UNPARSED) or (seen.kind is Kind.PATTERN and seen.text):
        return seen.text
    return seen.name + " of a computed name" if seen.kind is Kind.COMPUTED else seen.name


def _short(text: str) -> str:
    return text if len(text) <= MAX_SEEN_CHARS else text[: MAX_SEEN_CHARS - 1] + "…"


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(f"{what} is no string")
    return value


def _verdict(findings: list[Finding], metrics: Metrics, policy: Policy) -> Verdict:
    """The severest are told when there are too many; those told are in the order of the code."""
    kept = findings
    if len(findings) > MAX_FINDINGS:
        severest = sorted(range(len(findings)), key=lambda index: (-findings[index].severity.rank, index))
        kept = [findings[index] for index in sorted(severest[:MAX_FINDINGS])]
    allowed = not any(finding.severity is Severity.DENY for finding in findings)
    return Verdict(allowed, tuple(kept), metrics, policy.name, len(findings) - len(kept))

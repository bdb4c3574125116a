"""What a driver may ask of an engine, decided: for `proxy.py`, which stands between the two. Pure: asks nobody.

Whoever may ask an engine anything is root on its host. Who asks through here may ask what the driver asks: for
containers that are what `container.py` makes of their labels, word for word, of images that are allowed; and for the
life of those. What stays is told in `images/README.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from cellgate.sandbox.docker.container import LABEL, OWNER, SHARED_KERNEL, Container, Labels
from cellgate.sandbox.docker.images import TEMPLATE_LABEL, Template

__all__ = ["Ask", "Refused", "Rules", "Verdict", "judge", "read_ask"]

_CONTAINER: Final = r"(?P<container>[0-9a-f]{64}|cellgate-[0-9a-f]{32})"
_VERSION: Final = r"(?:/v1\.(?:2[4-9]|[3-9][0-9]))?"  # before 1.24 a start could say what the container is
_ID: Final = re.compile(r"[0-9a-f]{32}")
_OF_PROC: Final = re.compile(r"/proc/(?!\.)[^/]+")  # nothing deeper: /proc/self/fd/7 is the runtime's own


class Refused(Exception):
    """It may not be asked; the text says what may."""


@dataclass(frozen=True)
class Ask:
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Rules:
    directory: Path  # the driver's, which its containers name as their owner
    runtime: str
    images: Mapping[str, Template]  # those that may be used, by their ids
    uids: tuple[range, ...]  # of sandboxes
    hidden: frozenset[str]  # of /proc, at least


def read_ask(line: str, body: bytes = b"") -> Ask:
    """Out of a request's first line. Raises Refused."""
    words = line.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused("that is no request of HTTP/1.1")
    try:
        target = urlsplit(words[1])
        pairs = parse_qsl(target.query, keep_blank_values=True, strict_parsing=bool(target.query), max_num_fields=20)
    except ValueError:
        raise Refused("its target cannot be read") from None
    query = dict(pairs)
    if target.scheme or target.netloc or target.fragment or len(query) != len(pairs):
        raise Refused("a path, and each parameter once, would pass")
    return Ask(words[0], target.path, query, body)


@dataclass(frozen=True)
class Verdict:
    """What to ask the engine in its place, said again in our words: an engine may read the same bytes otherwise."""

    ask: Ask
    container: str = (
        ""  # of which the caller owes to see that it is the driver's; "" when it is about none, or a new one
    )


def judge(ask: Ask, rules: Rules) -> Verdict:
    """Raises Refused."""
    for method, path, parameters, say_again in _ROUTES:
        if ask.method == method and (match := re.fullmatch(_VERSION + path, ask.path)):
            if not ask.query.keys() <= set(parameters.split()):
                raise Refused(f"the parameters {parameters or 'none'} would pass")
            return Verdict(say_again(ask, rules), match.groupdict().get("container", ""))
    raise Refused(f"the driver asks for no {ask.method[:10]} {ask.path[:100]}")


def _plain(ask: Ask, rules: Rules) -> Ask:
    """It tells of the engine alone, or is about a container that is looked up."""
    return replace(ask, body=b"")


def _list(ask: Ask, rules: Rules) -> Ask:
    """Of what bears labels of ours; of several that are asked for all must be borne."""
    try:
        filters = json.loads(ask.query.get("filters", ""))
        labels = filters["label"]
    except (ValueError, KeyError, TypeError, RecursionError):
        labels = []
    wanted = (OWNER, f"{OWNER}={rules.directory}", TEMPLATE_LABEL)
    if not isinstance(labels, list) or not any(label in wanted for label in labels):
        raise Refused(f"a list of what bears the label {OWNER} or {TEMPLATE_LABEL} would pass")
    return replace(ask, query={**ask.query, "filters": json.dumps(filters)}, body=b"")


def _create(ask: Ask, rules: Rules) -> Ask:
    try:
        body = json.loads(ask.body)
        labels = Labels.from_engine({name: str(value) for name, value in body["Labels"].items()})
        masked = body["HostConfig"]["MaskedPaths"]
        said = json.dumps(body, sort_keys=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("that is no container of ours") from None
    if labels is None or labels.to_engine() != body["Labels"]:
        raise Refused(f"a container whose labels {LABEL}* tell of a sandbox would pass")
    if labels.owner != str(rules.directory) or not _ID.fullmatch(labels.id):
        raise Refused(f"a container that {rules.directory} owns would pass")
    if not any(labels.uid in uids for uids in rules.uids):
        raise Refused("it would be somebody; a uid of sandboxes would pass")
    image = rules.images.get(str(body.get("Image")))
    if image is None or image.name != labels.template:
        usable = (f"{one.name} ({one.image})" for one in rules.images.values())
        raise Refused(f"a container of {', '.join(usable) or 'no image'} would pass")
    config = Container(
        labels,
        image.image,
        image.kernel,
        str(rules.directory / labels.id),
        rules.runtime,
        rules.runtime in SHARED_KERNEL,
        _masked(masked, rules),
    )
    ours = json.dumps(config.to_engine(), sort_keys=True)
    if ask.query != {"name": config.name} or said != ours:
        raise Refused("a container that is, word for word, what its labels say would pass")
    return replace(ask, body=ours.encode())


def _masked(paths: object, rules: Rules) -> list[str]:
    """Of those that a container hides, what it hides of /proc: the rest is ours to say again."""
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Refused("its masked paths are no list of paths")
    hidden = [path for path in paths if _OF_PROC.fullmatch(path)]
    if not rules.hidden <= set(hidden):
        raise Refused(f"a container that hides {', '.join(sorted(rules.hidden - set(hidden)))} too would pass")
    return hidden


# Each with the parameters that the driver's library gives it: a start can also name a checkpoint on the host's disk.
_LISTED: Final = "all filters limit only_ids since size trunc_cmd until"
_ROUTES: Final[tuple[tuple[str, str, str, Callable[[Ask, Rules], Ask]], ...]] = (
    ("GET", r"/(?:version|info)", "", _plain),
    ("GET", r"/(?:events|containers/json|images/json)", _LISTED, _list),
    ("POST", r"/containers/create", "name", _create),
    ("POST", rf"/containers/{_CONTAINER}/start", "", _plain),
    ("POST", rf"/containers/{_CONTAINER}/kill", "signal", _plain),
    ("GET", rf"/containers/{_CONTAINER}/json", "", _plain),
    ("GET", rf"/containers/{_CONTAINER}/stats", "stream one-shot", _plain),
    ("DELETE", rf"/containers/{_CONTAINER}", "v link force", _plain),
)

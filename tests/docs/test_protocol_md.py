"""PROTOCOL.md says what the code does: each of its tables is read and held against the code."""

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

import pytest

from cellgate.errors import TooManyClients
from cellgate.gateway import agents as gateway_agents
from cellgate.gateway import sockets, websocket
from cellgate.gateway.frames import CloseCode
from cellgate.sandbox.certificate import Reason
from cellgate.sessions import agents, known, session, states
from cellgate.sessions.agents import EVENTS
from cellgate.sessions.clocks import WORKING_CPU_SHARE
from cellgate.sessions.hearing import BACKGROUND_SECONDS
from cellgate.sessions.session import RESTART_PAUSES
from cellgate.wire import agent, jupyter, strict
from cellgate_kernel import bridge, host, link, message

PAGE = (Path(__file__).parents[2] / "server" / "PROTOCOL.md").read_text()


def table(heading: str, strip: str = "`") -> list[list[str]]:
    """The rows of the one table whose heading row begins with these cells."""
    found = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert len(found) == 1, f"{len(found)} tables are headed {heading!r}"
    return [
        [cell.strip().strip(strip or None) for cell in row.strip("| ").split(" | ")] for row in found[0].splitlines()
    ]


def test_kinds():
    assert {(int(row[0]), row[1]) for row in table("kind | name")} == {(kind.value, kind.name) for kind in link.Kind}


def test_the_sizes_of_fixed_fields():
    """Offsets follow from sizes, and their sum is what the code packs."""
    tables = re.findall(r"^\| offset \| size \| field \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    fixed = []
    for rows in tables:
        at = 0
        for row in rows.splitlines():
            offset, size = (cell.strip() for cell in row.split("|")[1:3])
            if not size.isdigit():
                break
            assert int(offset) == at
            at += int(size)
        fixed.append(at)
    assert fixed == [link.HEADER_BYTES, link._HELLO.size, message._TAG.size]


def test_the_version():
    assert re.search(rf"\| 0 \| 4 \| version \| {link.VERSION} \|", PAGE)


def test_limits():
    defaults = vars(link.LinkLimits())
    rest = {
        name: getattr(module, name)
        for module in (link, message)
        for name in vars(module)
        if re.fullmatch(r"MAX_\w+|URGENT_\w+", name) and name != "MAX_OFFSETS"  # follows from MAX_BUFFERS
    }
    assert {row[0]: int(row[1]) for row in table("limit | default")} == defaults | rest


def test_limits_of_the_kernel_host():
    values = {name: value for name, value in vars(host).items() if re.fullmatch(r"MAX_\w+", name)}
    values = {name: value for name, value in values.items() if not hasattr(message, name)}  # imported from there
    assert {row[0]: int(row[1]) for row in table("limit of the kernel host | value")} == values


def test_exit_statuses():
    values = {name: value for module in (host, bridge) for name, value in vars(module).items() if name[:3] == "EX_"}
    assert {row[1]: int(row[0]) for row in table("status | name")} == values


def test_error_codes():
    written = {row[0]: row[1] for row in table("code | the peer sent")}
    assert written == link.ERROR_CODES | message.ERROR_CODES


@pytest.mark.parametrize("module", [link, message])
def test_every_code_that_is_raised_is_in_its_table(module):
    source = Path(module.__file__).read_text()
    assert set(re.findall(r'(?:Link|Message)Error\(\s*"(\w+)"', source)) == set(module.ERROR_CODES)


def test_message_types():
    written = {int(code): name for code, name in table("code | message type")}
    assert written == dict(enumerate(message.MESSAGE_TYPES)) | {0: "(any other)"}


def test_channels():
    written = {name: int(code) for name, code in table("channel | code")}
    assert written == {channel.name.lower(): channel.value for channel in message.Channel}
    assert list(written) == [name.decode() for name in message.CHANNELS]


def test_statuses():
    assert {row[0]: int(row[1]) for row in table("status | code")} == {s.name: s.value for s in message.Status}


def test_what_closes_a_websocket():
    written = {name: (int(code), what) for name, code, what in table("refused | close code")}
    assert written == jupyter.CLIENT_ERRORS


def test_why_the_gateway_closes_a_websocket():
    written = {name: (int(code), why) for name, code, why in table("closed by the gateway | close code")}
    said = {f"{name}: {why}": code for name, (code, why) in written.items() if name != TooManyClients.code}
    assert said == {text: code for code, text in sockets.PARTINGS.values()}
    assert written[TooManyClients.code][0] == sockets.TRY_AGAIN_LATER
    assert str(sorted(sockets.CLOSED_BY_CLIENT)) == "[1000, 1001, 1005]", "1005 stands for none"


def test_limits_of_a_clients_message():
    names = {**vars(jupyter), **vars(strict)}
    values = {name: value for name, value in names.items() if re.fullmatch(r"MAX_\w+", name)}
    values = {name: value for name, value in values.items() if not hasattr(message, name)}  # imported from there
    assert {row[0]: int(row[1]) for row in table("limit of a client's message | value")} == values


def test_the_names_of_errors_that_the_gateway_tells():
    written = dict(table("ended | ename"))
    assert written == {reason: name or "(aborted)" for reason, name in jupyter.ERROR_NAMES.items()}


def test_the_subprotocol():
    assert f"`{jupyter.Dialect.V1.value}`" in PAGE


def test_what_agents_may_ask():
    def name(one: Field[object]) -> str:
        is_needed = one.default is MISSING and one.default_factory is MISSING
        return f"`{one.name}`" if is_needed else f"`{one.name}`?"

    asked = {f"`{op}`": [name(one) for one in fields(kind)] for op, kind in agent.OPS.items()}
    assert {op: row.split(", ") for op, row, _ in table("op | fields", strip="")} == asked


def test_what_agents_are_told():
    rows = {event: re.findall(r"`(\w+)`(\??)", row) for event, row, _ in table("event | fields", strip="")}
    assert {event: tuple(name + mark for name, mark in row) for event, row in rows.items()} == {
        f"`{event}`": names for event, names in EVENTS.items()
    }


def test_the_forms_of_agents_messages():
    assert [row[0] for row in table("agents' subprotocol | a message is")] == [form.value for form in agent.Form]


def test_what_agents_are_refused():
    assert dict(table("refusal | because", strip="")) == {f"`{code}`": why for code, why in agent.REFUSALS.items()}
    modules = (agent, agents, session, gateway_agents)
    sources = "".join(Path(str(module.__file__)).read_text() for module in modules)
    assert set(re.findall(r'Refused\(\s*"(\w+)"', sources)) == set(agent.REFUSALS)


def test_what_closes_an_agents_websocket():
    written = {name: (int(code), what) for name, code, what in table("closed for | close code")}
    assert written == agent.CLOSED_FOR
    assert f"`future_cursor` ({gateway_agents.FUTURE_CURSOR})" in PAGE


def test_limits_of_the_agents_websocket():
    modules = (agent, agents, known, gateway_agents)
    values = {name: value for module in modules for name, value in vars(module).items() if name.startswith("MAX_")}
    elsewhere = {*vars(strict), *vars(message)}
    ours = {name: value for name, value in values.items() if name not in elsewhere}
    assert {row[0]: int(row[1]) for row in table("limit of the agents' websocket | value")} == ours
    assert f"The newest {known.MAX_KNOWN} cells" in " ".join(PAGE.split())
    assert f"up to {agents.MAX_SUMMARY_BYTES} bytes would be there" in PAGE


def test_reasons_are_the_closed_list_with_a_sentence_each():
    written = dict(table("reason | meaning"))
    assert set(written) == {reason.value for reason in Reason}
    assert all(sentence.endswith(".") for sentence in written.values())


def test_states_and_their_diagrams():
    assert dict(table("state | meaning")) == {state.value: text for state, text in states.STATE_MEANINGS.items()}
    for moves in (states.SESSION_MOVES, states.CELL_MOVES):
        assert f"```mermaid\n{states.diagram(moves)}```" in PAGE


def test_the_ends_of_cells():
    assert dict(table("end of a cell | meaning")) == {r.value: text for r, text in states.CELL_REASONS.items()}


def test_what_session_constants_the_text_names():
    pauses = [f"{pause:g}" for pause in RESTART_PAUSES]
    assert f"after {', '.join(pauses[:-1])} and\n{pauses[-1]} s" in PAGE
    assert f"less than {WORKING_CPU_SHARE * 100:g} % of a\ncore" in PAGE
    assert BACKGROUND_SECONDS == 60, "each minute"


def test_what_closes_a_connection_beneath_that():
    codes = (CloseCode.PROTOCOL_ERROR, CloseCode.BAD_TEXT, CloseCode.TOO_BIG, CloseCode.SERVER_FAULT)
    (paragraph,) = [text for text in PAGE.split("\n\n") if text.startswith("Beneath that")]
    assert re.findall(r"\b1\d{3}\b", paragraph) == [str(code.value) for code in codes]
    seconds = (websocket.PING_SECONDS, websocket.SILENCE_SECONDS, websocket.CLOSE_SECONDS)
    assert re.findall(r"(?<!UTF-)\b(\d{1,2})\b", paragraph) == [f"{number:g}" for number in seconds]

"""A session with everything around it played: its journal is a list, its kernel says what a test lets it say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sessions.cells import Cell, Judgement, Waiting
from cellgate.sessions.effects import Append, Effect, Judge, Send, StartKernel
from cellgate.sessions.journal import Reading, Recovery
from cellgate.sessions.limits import SessionLimits
from cellgate.sessions.records import Kind, Record
from cellgate.sessions.session import Session
from cellgate.wire.jupyter import (
    ClientMessage,
    Composer,
    Dialect,
    JupyterMessage,
    execute_content,
    make_message,
    parse_message,
    read_frame,
)
from cellgate_kernel.message import CHANNELS, Channel, Status, Tag, join_v1

DATE = "2026-01-01T00:00:00Z"
OUTCOMES = {"ok": Status.OK, "error": Status.ERROR, "aborted": Status.ABORTED}
STATES = {"starting": Status.STARTING, "busy": Status.BUSY, "idle": Status.IDLE}
LIMITS = SessionLimits(
    cell_seconds=10,
    interrupt_grace_seconds=2,
    idle_seconds=100,
    lifetime_seconds=1000,
    notice_seconds=20,
    output_bytes_per_cell=1 << 16,
    output_messages_per_cell=100,
    queue_cells=5,
    code_bytes=1000,
)


def client_message(
    msg_type: str, content: dict[str, object], msg_id: str, channel: Channel = Channel.SHELL
) -> ClientMessage:
    _, parts = make_message(msg_type, content, channel=channel, msg_id=msg_id, session="c", date=DATE)
    v1 = b"".join(join_v1(CHANNELS[channel], parts))
    return read_frame(v1, Dialect.V1, date=DATE, max_bytes=len(v1))


def cell(msg_id: str, code: str = "1+1", *, silent: bool = False, stop_on_error: bool = True) -> ClientMessage:
    return client_message("execute_request", execute_content(code, silent=silent, stop_on_error=stop_on_error), msg_id)


def said(
    msg_type: str, content: dict[str, object], parent: str = "", channel: Channel = Channel.IOPUB
) -> tuple[Tag, memoryview]:
    """What a kernel says, with a tag that tells the truth."""
    header = {"msg_id": parent, "msg_type": "execute_request"} if parent else {}
    _, parts = make_message(
        msg_type, content, channel=channel, msg_id="k_1", session="k", date=DATE, parent_header=header
    )
    table = STATES if msg_type == "status" else OUTCOMES if msg_type.endswith("_reply") else {}
    status = table.get(str(content.get("execution_state" if msg_type == "status" else "status")), Status.NONE)
    return Tag(channel, msg_type, status, parent.encode()), memoryview(b"".join(join_v1(CHANNELS[channel], parts)))


def status(state: str, parent: str = "") -> tuple[Tag, memoryview]:
    return said("status", {"execution_state": state}, parent)


def reply(parent: str, outcome: str = "ok") -> tuple[Tag, memoryview]:
    return said("execute_reply", {"status": outcome, "execution_count": 1}, parent, Channel.SHELL)


def stream(parent: str, text: str = "x\n") -> tuple[Tag, memoryview]:
    return said("stream", {"name": "stdout", "text": text}, parent)


def whole(parent: str, outcome: str = "ok") -> list[tuple[Tag, memoryview]]:
    return [status("busy", parent), reply(parent, outcome), status("idle", parent)]


@dataclass
class Stage:
    """`session` is driven through `do`; what it said is in `records`, numbered, and all it did in `effects`."""

    limits: SessionLimits = LIMITS
    now: float = 1000.0
    judges: bool = False
    records: list[Record] = field(default_factory=list)
    messages: list[JupyterMessage] = field(default_factory=list)  # what clients see of them
    effects: list[Effect] = field(default_factory=list)
    session: Session = field(init=False)
    link: int = 0  # messages of this incarnation's kernel
    lives: int = 0

    def __post_init__(self) -> None:
        self.session = self._gateway()

    def _gateway(self) -> Session:
        self.lives += 1
        composer, seq = Composer(f"gateway{self.lives}"), len(self.records) + 1
        return Session(
            self.limits,
            composer=composer,
            date=lambda: DATE,
            next_seq=seq,
            now=self.now,
            judges=self.judges,
        )

    def do(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Append):
                for record in effect.records:
                    kept = record._replace(seq=len(self.records) + 1, body=bytes(record.body))
                    assert kept.kind is not Kind.REQUEST or kept.cell == kept.seq, "the session counts as the journal"
                    self.records.append(kept)
                    if kept.kind in (Kind.OUTPUT, Kind.NOTE):
                        self.messages.append(parse_message(memoryview(kept.body)))
            elif isinstance(effect, StartKernel):
                self.link = 0
        self.effects += effects
        return effects

    # -- what happens -----------------------------------------------------------------------------------

    def started(self) -> Stage:
        self.do(self.session.begin())
        return self.start()

    def start(self) -> Stage:
        number = self.session.incarnation
        self.do(self.session.kernel_started(number, f"sandbox{number}", self.now))
        return self

    def ask(self, *messages: ClientMessage, client: bytes = b"a") -> list[Effect]:
        return [e for message in messages for e in self.do(self.session.request(client, message, self.now))]

    def asked(self) -> list[Cell | Waiting]:
        """Of what verdicts are wanted that were not given yet."""
        return [effect.item for effect in self.effects if isinstance(effect, Judge) and effect.item.judgement is None]

    def judge(self, judgement: Judgement) -> list[Effect]:
        """What was first asked for."""
        return self.do(self.session.judged(self.asked()[0], judgement, self.now))

    def hear(self, *messages: tuple[Tag, memoryview]) -> list[Effect]:
        """One read of the link."""
        batch = []
        for tag, v1 in messages:
            self.link += 1
            batch.append((self.link, tag, v1))
        return self.do(self.session.kernel_messages(self.session.incarnation, batch, self.now))

    def pass_time(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.do(self.session.tick(self.now))

    def die(self, reason: Reason = Reason.OOM) -> list[Effect]:
        certificate = DeathCertificate(reason)
        return self.do(self.session.kernel_died(self.session.incarnation, certificate, self.now))

    def crash(self, known: bytes = b"") -> None:
        """The gateway dies and another takes over; call `session.adopted` or `kernel_lost` next."""
        former = self.session
        state, sandbox_id = former.state, former.sandbox_id
        self.session = self._gateway()
        found = recovery_of(self.records)
        incarnation = former.incarnation
        problems = self.session.recover(
            found, state=state, incarnation=incarnation, sandbox_id=sandbox_id, read=self.read, known=known
        )
        assert not problems

    def read(self, seq: int, _: int) -> Reading:
        """As the journal does."""
        return Reading(None, self.records[seq - 1 :], len(self.records) + 1)

    # -- what came of it --------------------------------------------------------------------------------

    def sends(self) -> list[str]:
        return [effect.message.msg_id for effect in self.effects if isinstance(effect, Send)]

    def sends_in_all(self) -> int:
        """How many messages the kernel of this incarnation was sent."""
        return max((e.number for e in self.effects if isinstance(e, Send)), default=0)

    def shown(self, parent: str | None = None) -> list[JupyterMessage]:
        """What clients see, of one request or all."""
        return [message for message in self.messages if parent is None or message["parent_id"] == parent]

    def told(self, parent: str) -> list[str]:
        """The same in short: stream, reply:ok, idle, ..."""
        short = []
        for message in self.shown(parent):
            kind, content = message["msg_type"], message["content"]
            if kind == "status":
                kind = content["execution_state"]
            elif kind.endswith("_reply"):
                kind = f"reply:{content['status']}"
            short.append(kind)
        return short

    def ends(self) -> dict[str, str]:
        """Of each cell that ended, why."""
        ids = {r.cell: r.tag.parent_id.decode() for r in self.records if r.kind is Kind.REQUEST}
        return {ids[r.cell]: json.loads(bytes(r.body))["reason"] for r in self.records if r.kind is Kind.TERMINAL}

    def notes(self) -> list[dict[str, object]]:
        """The facts of what the gateway said beside."""
        bodies = [parse_message(memoryview(r.body)) for r in self.records if r.kind is Kind.NOTE]
        return [body["metadata"]["cellgate"] for body in bodies]

    def check_contract(self, *, is_over: bool) -> None:
        """Each accepted cell gets one reply, one idle and one terminal record: never more, and when all is over
        never less."""
        replies, idles, terminals = Counter[str](), Counter[str](), Counter[int]()
        for message in self.messages:
            parent, content = message["parent_id"], message["content"]
            replies[parent] += message["msg_type"] == "execute_reply"
            idles[parent] += message["msg_type"] == "status" and content["execution_state"] == "idle"
        for record in self.records:
            terminals[record.cell] += record.kind is Kind.TERMINAL
        for record in self.records:
            if record.kind is Kind.REQUEST:
                name = record.tag.parent_id.decode()
                counts = replies[name], idles[name], terminals[record.seq]
                assert max(counts) <= 1, (name, counts, self.told(name))
                assert not is_over or counts == (1, 1, 1), (name, counts, self.told(name))


def recovery_of(records: Sequence[Record]) -> Recovery:
    """What a journal of these says, in the plainest way."""
    incarnation, number = None, 0
    requests: dict[int, Record] = {}
    cuts: dict[int, Record] = {}
    for record in records:
        number = max(number, record.link)
        if record.kind is Kind.INCARNATION:
            incarnation, number = record, 0
        elif record.kind is Kind.REQUEST:
            requests[record.seq] = record
        elif record.kind is Kind.CUT:
            cuts[record.cell] = record
        elif record.kind is Kind.TERMINAL:
            requests.pop(record.cell, None)
    open_cuts = tuple(cut for key, cut in cuts.items() if key in requests)
    return Recovery(incarnation, number, tuple(requests.values()), open_cuts, ())


def with_limits(**changes: float) -> SessionLimits:
    return SessionLimits(**{**vars(LIMITS), **changes})

"""Clients, truthful and lying kernels, verdicts, deaths of kernels and of gateways, clocks: in any order, every cell
that was accepted gets one reply, one idle and one terminal record, and reaches a kernel only if it was allowed."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cellgate.errors import PolicyError
from cellgate.policy.judge import judge
from cellgate.policy.policies import STRICT
from cellgate.policy.verdicts import Verdict
from cellgate.sandbox.certificate import Reason
from cellgate.sessions.cells import Cell, Waiting
from cellgate.sessions.effects import Destroy, Interrupt, Judge, Kill, Save, Send, StartKernel
from cellgate.sessions.records import Kind
from cellgate.sessions.states import State
from cellgate_kernel.message import Channel, Status, Tag
from tests.support.stage import LIMITS, Stage, cell, client_message, reply, said, status, stream

DENIED = judge("import socket", "python", STRICT)
ABOUT = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 9])  # whom a lie is about: 0 for the cell that runs
OUTCOME = st.sampled_from(["ok", "error", "aborted"])
DISTURBANCES = ["interrupt", *["interrupt sent"] * 3, "restart", "tick", "death", "death unseen", *["crash"] * 3]
LIES = [
    *[lambda parent: reply(parent, "ok")] * 4,
    lambda parent: reply(parent, "error"),
    *[lambda parent: status("idle", parent)] * 4,
    lambda parent: status("busy", parent),
    lambda parent: status("dead", parent),
    lambda parent: status("starting", parent),
    lambda parent: said("execute_reply", {"status": "ok"}, parent, Channel.IOPUB),
    lambda parent: said("execute_reply", {"status": "ok"}, parent, Channel.CONTROL),
    lambda parent: said("complete_reply", {"status": "ok"}, parent, Channel.SHELL),
    lambda parent: said("input_request", {"prompt": ""}, parent, Channel.STDIN),
    lambda parent: said("error", {"ename": "E"}, parent),
    lambda parent: (stream(parent)[0], reply(parent)[1]),
    lambda parent: (stream(parent)[0], status("idle", parent)[1]),
    lambda parent: (reply("nobody")[0], reply(parent)[1]),
    lambda parent: (status("busy", parent)[0], status("idle", parent)[1]),
    lambda parent: (Tag(Channel.IOPUB, "", Status.NONE, parent.encode()), status("idle", parent)[1]),
    lambda parent: (status("idle", parent)[0], memoryview(b"nothing")),
]


class Sessions(RuleBasedStateMachine):
    """The world around one session."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.asked: list[Cell | Waiting] = []  # of what verdicts are wanted
        self.allowed: set[str] = set()  # ids
        self.inbox: list[str] = []  # the id of the cell that the kernel has, if any
        self.mouth: list[tuple[Tag, memoryview]] = []  # what it is about to say
        self.ran: list[str] = []  # of all cells that any kernel ever got
        self.number = 0
        self.living = 0  # the incarnation whose sandbox lives, or 0
        self.starting = 0  # the incarnation that is being started
        self.interrupting: list[int] = []  # the incarnations that interrupts are on their way to
        self.arrived = 0  # messages that reached the living kernel
        self.saved = (State.STARTING, 0, "")

    @initialize(judges=st.booleans())
    def begin(self, judges) -> None:
        self.stage = Stage(judges=judges)
        self.obey(self.stage.do(self.stage.session.begin()))

    def obey(self, effects) -> None:
        for effect in effects:
            if isinstance(effect, StartKernel):
                assert not self.starting, "one start at a time"
                self.starting = effect.incarnation
            elif isinstance(effect, Destroy) and effect.incarnation == self.living:
                self.living = 0
            elif isinstance(effect, Kill):
                pass  # what comes of it is a death, when the model likes
            elif isinstance(effect, Interrupt):
                self.interrupting.append(effect.incarnation)
            elif isinstance(effect, Judge):
                self.asked.append(effect.item)
            elif isinstance(effect, Save):
                self.saved = (effect.state, effect.incarnation, effect.sandbox_id)
            elif isinstance(effect, Send):
                assert effect.incarnation == self.living
                assert effect.number == self.arrived + 1, "numbers without a gap"
                self.arrived += 1
                if self.stage.judges and effect.message.msg_type not in ("input_reply", "interrupt_request"):  # no code
                    assert effect.message.msg_id in self.allowed, "judged before it is sent"
                if effect.message.msg_type == "execute_request":
                    assert effect.message.msg_id not in self.ran, "each cell runs at most once"
                    assert set(self.inbox) <= self.stage.ends().keys(), "one cell at a time"
                    self.ran.append(effect.message.msg_id)
                    self.inbox, self.mouth = [effect.message.msg_id], []

    @property
    def session(self):
        return self.stage.session

    @property
    def has_kernel(self) -> bool:
        return self.living != 0 and self.living == self.session.incarnation

    def new_id(self) -> str:
        self.number += 1
        return f"c{self.number}"

    # -- clients --------------------------------------------------------------------------------------

    @rule(stop=st.booleans(), silent=st.booleans(), count=st.integers(1, 4))
    def execute(self, stop, silent, count):
        for _ in range(count):
            self.obey(self.stage.ask(cell(self.new_id(), stop_on_error=stop, silent=silent)))

    @rule(kind=st.sampled_from(["complete_request", "comm_msg", "kernel_info_request", "input_reply"]))
    def ask(self, kind):
        channel = Channel.STDIN if kind == "input_reply" else Channel.SHELL
        self.obey(self.stage.ask(client_message(kind, {}, f"o{self.new_id()}", channel)))

    # -- verdicts -------------------------------------------------------------------------------------

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 3), judgement=st.sampled_from([*[Verdict()] * 3, DENIED, PolicyError("too deep")]))
    def judge(self, which, judgement):
        """Those that nobody waits for any more may come too."""
        item = self.asked.pop(which % len(self.asked))
        if judgement == Verdict():
            self.allowed.add(item.message.msg_id)
        self.obey(self.stage.do(self.session.judged(item, judgement, self.stage.now)))

    # -- kernels --------------------------------------------------------------------------------------

    @precondition(lambda self: self.starting)
    @rule(succeeds=st.sampled_from([True, True, True, False]))
    def start(self, succeeds):
        incarnation, self.starting = self.starting, 0
        if succeeds:
            self.living, self.inbox, self.mouth, self.arrived = incarnation, [], [], 0
            self.stage.link = 0
            effects = self.session.kernel_started(incarnation, f"sandbox{incarnation}", self.stage.now)
        else:
            effects = self.session.start_failed(incarnation, "no luck", self.stage.now)
        self.obey(self.stage.do(effects))

    @precondition(lambda self: self.has_kernel and self.inbox and not self.mouth)
    @rule(outcome=OUTCOME, lines=st.integers(0, 3), idle_first=st.booleans(), count=st.integers(1, 7))
    def answer(self, outcome, lines, idle_first, count):
        """The truth, in one read or more."""
        parent = self.inbox[0]
        ends = [reply(parent, outcome), status("idle", parent)]
        self.mouth = [status("busy", parent), *(stream(parent) for _ in range(lines))]
        self.mouth += reversed(ends) if idle_first else ends
        self.speak(count)

    @precondition(lambda self: self.has_kernel and self.mouth)
    @rule(count=st.integers(1, 7))
    def speak(self, count):
        messages, self.mouth = self.mouth[:count], self.mouth[count:]
        if not self.mouth:
            self.inbox = []
        self.obey(self.stage.hear(*messages))

    @precondition(lambda self: self.has_kernel and self.number)
    @rule(
        lies=st.lists(
            st.tuples(st.sampled_from(LIES), st.sampled_from([0, 0, 0, 1, 2, 3, 5, 9])), min_size=1, max_size=4
        )
    )
    def lie(self, lies):
        """Of whatever cell, be it done, running, waiting or unheard of."""
        running = self.session.running
        own = running.message.msg_id if running else "c1"
        self.obey(self.stage.hear(*(make(f"c{number}" if number else own) for make, number in lies)))
        if self.inbox and self.inbox[0] in self.stage.ends():
            self.inbox, self.mouth = [], []  # it lied its cell to an end, which is its own affair

    @precondition(lambda self: self.has_kernel and self.inbox)
    @rule()
    def flood(self):
        self.obey(self.stage.hear(*(stream(self.inbox[0]) for _ in range(LIMITS.output_messages_per_cell + 50))))

    # -- what disturbs --------------------------------------------------------------------------------

    @rule(what=st.sampled_from(DISTURBANCES), reason=st.sampled_from(Reason), flag=st.booleans())
    def disturb(self, what, reason, flag):
        """One rule for all of them, so that between two of them something goes on."""
        session, now = self.session, self.stage.now
        if what == "interrupt":
            self.obey(self.stage.do(session.interrupt(now)))
        elif what == "interrupt sent" and self.interrupting:
            self.obey(self.stage.do(session.interrupt_sent(self.interrupting.pop(0), now)))
        elif what == "restart":
            self.obey(self.stage.do(session.restart(now)))
        elif what == "tick":
            self.obey(self.stage.pass_time(3.0 if flag else 15.0))
        elif what == "death" and self.has_kernel:
            self.living, self.inbox, self.mouth = 0, [], []
            self.obey(self.stage.die(reason))
        elif what == "death unseen" and self.has_kernel:
            self.living, self.inbox, self.mouth = 0, [], []
            self.crash(flag)
        elif what == "crash" and session.state is not State.GONE:
            self.crash(flag)

    def crash(self, has_arrived: bool) -> None:
        """The gateway dies, perhaps before its last Send got through; its kernel may have died meanwhile."""
        last = self.stage.effects[-1]
        if not has_arrived and self.has_kernel and isinstance(last, Send) and [last.message.msg_id] == self.inbox:
            self.arrived -= 1
            self.ran.remove(self.inbox.pop())
            self.mouth = []
        self.starting, self.interrupting = 0, []
        self.asked, self.allowed = [], set()  # the next gateway may think otherwise
        lives = self.has_kernel and self.session.state in (State.READY, State.BUSY)
        self.stage.crash()
        if lives:
            self.obey(self.stage.do(self.session.adopted(self.arrived, self.stage.now)))
        else:
            self.living, self.inbox, self.mouth = 0, [], []
            self.obey(self.stage.do(self.session.kernel_lost(self.stage.now)))

    # -- what holds -----------------------------------------------------------------------------------

    @invariant()
    def nothing_is_said_twice(self):
        self.stage.check_contract(is_over=False)

    @invariant()
    def the_state_is_true(self):
        session = self.session
        if session.state is State.READY:
            assert session.running is None
        if session.state in (State.DEAD, State.GONE):
            assert session.running is None and session.waiting_cells == 0
        assert self.saved[:2] == (session.state, session.incarnation) or session.state in (State.READY, State.BUSY)
        assert (session.wakes_at() is None) == (session.state is State.GONE)

    @invariant()
    def the_journal_knows_how_far_the_link_has_come(self):
        records = self.stage.records
        begin = max((n for n, r in enumerate(records) if r.kind is Kind.INCARNATION), default=0)
        if self.has_kernel:
            assert max((r.link for r in records[begin:]), default=0) == self.stage.link

    def teardown(self):
        self.obey(self.stage.do(self.session.delete(self.stage.now)))
        self.stage.check_contract(is_over=True)


Sessions.TestCase.settings = settings(
    max_examples=int(os.environ.get("CELLGATE_MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSessions = Sessions.TestCase

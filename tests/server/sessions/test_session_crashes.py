"""A gateway that dies between any two effects leaves something to go on from: registry, journal and sandboxes may then
say different things, and each accepted cell still ends once and runs at most once."""

from __future__ import annotations

import pytest

from cellgate.policy.verdicts import Verdict
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sessions.effects import Destroy, Effect, Interrupt, Kill, Save, Send, StartKernel
from cellgate.sessions.records import Kind
from cellgate.sessions.recovery import Fate, decide, newest_incarnation
from cellgate.sessions.registry import SessionRow
from cellgate.sessions.states import State
from cellgate_kernel.message import Channel
from tests.support.stage import LIMITS, Stage, cell, client_message, recovery_of, reply, said, status, stream, whole


class World:
    """What outlives a gateway: the journal (of the stage), the registry's row, the sandboxes and what reached them."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.row = SessionRow("s", "ada")
        self.sandboxes: dict[str, list[str]] = {}  # the cells that each has got
        self.sent: dict[str, int] = {}

    def do(self, effects: list[Effect]) -> None:
        """Carry them out; kernels start at once."""
        for effect in effects:
            self.stage.do([effect])
            if isinstance(effect, Save):
                self.row = SessionRow("s", "ada", {}, effect.state, effect.incarnation, effect.sandbox_id)
            elif isinstance(effect, Destroy):
                self.sandboxes.pop(f"sandbox{effect.incarnation}", None)
            elif isinstance(effect, Send):
                name = f"sandbox{effect.incarnation}"
                self.sent[name] = effect.number
                self.sandboxes[name].append(effect.message.msg_id)
            elif isinstance(effect, StartKernel):
                name = f"sandbox{effect.incarnation}"
                self.sandboxes[name], self.sent[name] = [], 0

    def start(self) -> list[Effect]:
        session = self.stage.session
        return session.kernel_started(session.incarnation, f"sandbox{session.incarnation}", self.stage.now)

    def hear(self, *messages) -> list[Effect]:
        session = self.stage.session
        batch = [(session.received + n, *message) for n, message in enumerate(messages, 1)]
        return session.kernel_messages(session.incarnation, batch, self.stage.now)

    def succeed(self) -> Fate:
        """The gateway is dead: another takes over, as the recovery decides."""
        found = recovery_of(self.stage.records)
        plan = decide([self.row], {"s": newest_incarnation(found)}, self.sandboxes)
        (decision,) = plan.decisions
        for orphan in plan.orphans:
            del self.sandboxes[orphan]
        if decision.fate is Fate.CLEAR_AWAY:
            return decision.fate
        self.stage.session = session = self.stage._gateway()
        row = decision.row
        assert not session.recover(
            found,
            state=row.state,
            incarnation=row.incarnation,
            sandbox_id=row.sandbox_id,
            read=self.stage.read,
        )
        if decision.fate is Fate.ADOPT:
            self.do(session.adopted(self.sent[row.sandbox_id], self.stage.now))
        else:
            self.do(session.kernel_lost(self.stage.now))
        return decision.fate

    def live_on(self) -> None:
        """Kernels start and answer what they have got, until nothing is left to do."""
        session = self.stage.session
        for _ in range(20):
            if session.state in (State.STARTING, State.RESTARTING):
                self.do(self.start())
            elif session.running is not None:
                cell_id = session.running.message.msg_id
                assert self.sandboxes[session.sandbox_id][-1] == cell_id
                self.do(self.hear(*whole(cell_id)))
        assert session.state in (State.READY, State.DEAD, State.GONE)


def three_cells(world: World) -> None:
    world.do(world.stage.session.begin())
    world.do(world.start())
    for name in ("c1", "c2", "c3"):
        world.do(world.stage.session.request(b"a", cell(name), world.stage.now))


def restarting(world: World) -> None:
    three_cells(world)
    world.do(world.stage.session.restart(world.stage.now))
    world.do(world.stage.session.request(b"a", cell("c4"), world.stage.now))


def idle(world: World) -> None:
    three_cells(world)
    for name in ("c1", "c2", "c3"):
        world.do(world.hear(*whole(name)))


def late(world: World) -> list[Effect]:
    world.stage.now += LIMITS.lifetime_seconds
    return world.stage.session.tick(world.stage.now)


EVENTS = {
    "a cell is accepted": (three_cells, lambda w: w.stage.session.request(b"a", cell("c4"), w.stage.now)),
    "a cell is accepted and sent": (idle, lambda w: w.stage.session.request(b"a", cell("c4"), w.stage.now)),
    "a cell ends and the next is sent": (three_cells, lambda w: w.hear(*whole("c1"))),
    "a cell fails": (three_cells, lambda w: w.hear(*whole("c1", "error"))),
    "a cell replies": (three_cells, lambda w: w.hear(status("busy", "c1"), reply("c1"))),
    "output comes": (three_cells, lambda w: w.hear(*(stream("c1") for _ in range(500)))),
    "the kernel dies": (
        three_cells,
        lambda w: w.stage.session.kernel_died(1, DeathCertificate(Reason.OOM), w.stage.now),
    ),
    "it is restarted": (three_cells, lambda w: w.stage.session.restart(w.stage.now)),
    "the next kernel starts": (restarting, lambda w: w.start()),
    "it is deleted": (three_cells, lambda w: w.stage.session.delete(w.stage.now)),
    "it expires": (three_cells, late),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_gateway_may_die_between_any_two_effects(event):
    for done in range(20):
        world = World()
        prepare, happen = EVENTS[event]
        prepare(world)
        effects = happen(world)
        world.do(effects[:done])
        if world.succeed() is Fate.CLEAR_AWAY:
            assert any(isinstance(effect, Save) for effect in effects[:done]), "only what was to go"
        else:
            world.live_on()
            world.stage.check_contract(is_over=True)
            reached = [name for cells in world.sandboxes.values() for name in cells]
            assert len(set(reached)) == len(reached)
            assert set(world.sandboxes) <= {world.stage.session.sandbox_id}
            kinds = [r.kind for r in world.stage.records]
            assert kinds.count(Kind.TERMINAL) == kinds.count(Kind.REQUEST)
        if done > len(effects):
            return
    raise AssertionError("more effects than expected")


def test_a_question_of_before_the_crash_can_be_answered_after_it():
    """The kernel waits on; nobody else would ever answer it."""
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(status("busy", "c1"), said("input_request", {"prompt": "?"}, "c1", Channel.STDIN))
    stage.crash()
    stage.do(stage.session.adopted(1, stage.now))
    stage.ask(client_message("input_reply", {"value": "x"}, "i1", Channel.STDIN))
    assert stage.sends()[-1] == "i1"
    stage.ask(client_message("input_reply", {"value": "y"}, "i2", Channel.STDIN))
    assert stage.sends()[-1] == "i1", "it asked once"


def test_what_means_a_cell_is_held_until_its_kernel_has_greeted_the_heir():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(status("busy", "c1"), said("input_request", {"prompt": "?"}, "c1", Channel.STDIN))
    stage.crash()
    stage.ask(client_message("input_reply", {"value": "x"}, "i1", Channel.STDIN))
    stage.ask(client_message("comm_info_request", {}, "q1", Channel.CONTROL))
    stage.do(stage.session.interrupt(stage.now))
    before = stage.sends()
    stage.do(stage.session.adopted(1, stage.now))
    assert stage.sends()[len(before) :] == ["i1", "interrupt", "q1"]


def test_what_means_a_cell_that_never_reached_its_kernel_comes_behind_it():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.crash()
    stage.do(stage.session.interrupt(stage.now))
    stage.do(stage.session.adopted(0, stage.now))
    assert stage.sends()[-2:] == ["c1", "interrupt"]
    stage.hear(*whole("c1", "error"))
    assert stage.ends() == {"c1": "interrupted"}


def test_what_means_one_cell_is_given_to_no_other():
    """It may be a password. The cell it means is cancelled before the kernel has it."""
    stage = Stage(judges=True).started()
    stage.ask(cell("c1"))
    stage.judge(Verdict())
    stage.crash()
    stage.ask(client_message("input_reply", {"value": "x"}, "i1", Channel.STDIN))
    stage.do(stage.session.interrupt(stage.now))
    stage.do(stage.session.adopted(0, stage.now))
    stage.do(stage.session.cancel("c1", stage.now))
    stage.ask(cell("c2"))
    while stage.asked():
        stage.judge(Verdict())
    assert stage.sends() == ["c1", "c2"]


def test_an_interrupt_while_nothing_runs_strikes_no_later_cell():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*whole("c1"))
    stage.crash()
    stage.do(stage.session.interrupt(stage.now))
    stage.do(stage.session.interrupt_sent(1, stage.now))
    stage.do(stage.session.adopted(1, stage.now))
    stage.ask(cell("c2"))
    assert stage.sends() == ["c1", "c2"]


def test_of_interrupts_that_are_held_one_is_sent():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.crash()
    for _ in range(100):
        stage.do(stage.session.interrupt(stage.now))
    stage.do(stage.session.adopted(1, stage.now))
    assert stage.sends() == ["c1", "interrupt"]


def test_a_kernel_that_never_greets_the_heir_is_interrupted_and_killed_in_time():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.crash()
    stage.effects.clear()
    stage.pass_time(LIMITS.cell_seconds)
    stage.pass_time(LIMITS.interrupt_grace_seconds)
    assert [type(effect) for effect in stage.effects if isinstance(effect, (Interrupt, Kill))] == [Interrupt, Kill]
    stage.die(Reason.TIMEOUT_WALL)
    assert stage.ends() == {"c1": "timeout_wall"}


def test_a_kernel_that_was_never_saved_leaves_its_numbers_to_no_other():
    """The registry refused to be written when it began. The next heir told the kernel after it that more had been heard
    than that one ever said; which no kernel believes."""
    stage = Stage().started()
    stage.hear(status("starting"), stream("", "between"))
    stage.session.state = State.RESTARTING  # as the registry has it
    stage.crash()
    stage.do(stage.session.kernel_lost(stage.now))
    stage.start().hear(status("starting"))
    stage.crash()
    assert stage.session.received == 1

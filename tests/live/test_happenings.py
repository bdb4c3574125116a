"""What happens is told to each listener, whatever the others do with it."""

from __future__ import annotations

from cellgate.live.happenings import Happenings, SessionEnded, Who

ENDED = SessionEnded(Who("ada", "s1"), "session_deleted")


def test_each_listener_hears_everything_in_order():
    happenings, heard = Happenings(), []
    happenings.listen(lambda happening: heard.append(("first", happening)))
    happenings.listen(lambda happening: heard.append(("second", happening)))
    happenings.tell(ENDED)
    assert heard == [("first", ENDED), ("second", ENDED)]


def test_a_listener_that_fails_harms_nobody(caplog):
    happenings, heard = Happenings(), []

    def fail(happening):
        raise OSError("the disk is full")

    happenings.listen(fail)
    happenings.listen(heard.append)
    happenings.tell(ENDED)
    assert heard == [ENDED]
    assert "SessionEnded was told to a listener that failed" in caplog.text


def test_who_listens_no_more_is_told_no_more():
    happenings, heard = Happenings(), []
    end = happenings.listen(heard.append)
    end()
    end()
    happenings.tell(ENDED)
    assert heard == []

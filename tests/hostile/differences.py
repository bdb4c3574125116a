"""Cases that do not hold over a driver as they stand, each with the reason: what is so, and why it harms nobody else.

Everything that is not named here holds over every real driver. `conftest.py` leaves these out; `test_rows.py` knows
that each is a case.
"""

from __future__ import annotations

__all__ = ["DIFFERENCES", "left_out"]

_INIT = "process 1 is the engine's, with the session's uid: it can be looked into and signalled, and knows nothing"
_IMAGE = "its root is an image's, with its empty directories, and the mounts name directories of the engine's"
_UID = "it has the same uid inside and outside, which is nobody's but its own"
_SUID = "the engine's mounts admit set-user-id programs, and no_new_privs makes them powerless"
_EPERM = "what no rule of an engine's profile meets is refused with EPERM, and not as by a kernel that lacks it"
_PROC = "/proc is writable, and with it what a process may change of itself; nothing beneath /proc/sys is"
_DEV = "/dev has a tty and an empty directory for message queues too"
_LINK = "it listens for its links, and has no birth socket"
_TERMINALS = "an engine bounds no terminals: a session may hold as many as it may open files, of 4096 of the host"

DOCKER = {
    "test_nobody_in_a_sandbox_escapes_being_killed_for_memory": _INIT,
    "test_no_look_into_another_process": _INIT,
    "test_process_1_hears_no_signal_from_inside": _INIT,
    "test_however_it_ends_itself_the_reason_is_told_in_time[its parent, which is nobody]": _INIT,
    "test_no_process_is_seen_but_the_sandboxs_own": _INIT,
    "test_process_1_shows_no_way_out": _INIT,
    "test_the_environment_is_a_list_of_harmless_names": _INIT,
    "test_a_set_user_id_program_changes_nothing": _UID,
    "test_root_is_nobody_in_here_and_the_session_is_nobody_outside": _UID,
    "test_no_mount_admits_set_user_id_or_devices": _SUID,
    "test_the_internet_is_out_of_reach_at_once": _EPERM,
    "test_files_of_the_host_that_hold_secrets_are_not_there": _IMAGE,
    "test_the_root_holds_what_was_planned_and_nothing_else": _IMAGE,
    "test_the_mount_table_names_no_directory_but_the_documented_ones": _IMAGE,
    "test_sys_is_not_there_and_cgroups_cannot_be_reached": _IMAGE,
    "test_nothing_of_proc_can_be_written": _PROC,
    "test_only_harmless_devices_exist_and_no_other_can_be_made": _DEV,
    "test_rubbish_on_the_birth_socket_reaches_nobody": _LINK,
    "test_the_wardens_socket_is_not_inside": _LINK,
    "test_a_terminal_of_ones_own_is_harmless": _TERMINALS,
}

GVISOR: dict[str, str] = {}

DIFFERENCES = {"native": {}, "docker": DOCKER, "docker-runsc": GVISOR}


def left_out(driver: str, case: str) -> str:
    """Why this case, a test's name or that of one of its parameters, does not stand over a driver; "" if it does."""
    name, _, parameters = case.partition("[")
    inside = parameters.removesuffix("]").removeprefix(driver).removeprefix("-")
    found = DIFFERENCES.get(driver, {})
    return found.get(name) or found.get(f"{name}[{inside}]", "")

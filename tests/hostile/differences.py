"""Cases that do not hold over a driver as they stand, each with the reason: what is so, and why it harms nobody else.

Everything that is not named here holds over every real driver. `conftest.py` leaves these out; `test_rows.py` knows
that each is a case.
"""

from __future__ import annotations

__all__ = ["ALWAYS_OVER_GVISOR", "DIFFERENCES", "left_out"]

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

# Of gVisor's: what a sandbox reaches there is a kernel of its own, and what it may do to that one it does to itself.
_KERNEL = "its kernel answers in other words, lets through what changes its own state alone, and is an older one"
_THREADS = "its kernel's threads count as its processes, 256 above the limit; one that is refused ends the session"
_MEMORY = "when memory runs out the host kills a part of its kernel, and the session ends: no child is killed alone"
_FILES = "/tmp is a memory of its own, and files are bounded by their bytes and not by their number"
_PROC_OF_ITS_OWN = "/proc, /sys and /dev are those of its kernel, and tell of nothing else"

GVISOR = {
    "test_a_set_user_id_program_changes_nothing": _UID,
    "test_root_is_nobody_in_here_and_the_session_is_nobody_outside": _UID,
    "test_files_of_the_host_that_hold_secrets_are_not_there": _IMAGE,
    "test_the_root_holds_what_was_planned_and_nothing_else": _IMAGE,
    "test_no_mount_admits_set_user_id_or_devices": _SUID,
    "test_rubbish_on_the_birth_socket_reaches_nobody": _LINK,
    "test_the_wardens_socket_is_not_inside": _LINK,
    "test_a_shut_birth_socket_is_told_when_a_link_is_wanted": "it is told when a link is asked for, and not before",
    "test_sockets_inside_tell_nothing_of_their_other_ends_owner": "its /proc names the socket that it listens on",
    "test_the_kernels_descriptors_lead_nowhere_but_to_itself_and_its_link": "its kernel calls sockets otherwise",
    "test_no_process_is_seen_but_the_sandboxs_own": _INIT,
    "test_however_it_ends_itself_the_reason_is_told_in_time[its parent, which is nobody]": _INIT,
    "test_process_1_does_not_end_before_the_kernel_and_the_warden_does_not_care": _INIT,
    "test_process_1_hears_no_signal_from_inside": _INIT,
    "test_process_1_shows_no_way_out": _INIT,
    "test_the_environment_is_a_list_of_harmless_names": _INIT,
    "test_a_terminal_of_ones_own_is_harmless": "its terminals are its own, and as many as it may open files",
    "test_the_internet_is_out_of_reach_at_once": _KERNEL,
    "test_no_family_of_sockets_but_three_and_no_protocol_but_two": _KERNEL,
    "test_there_is_no_interface_but_a_loopback_of_its_own": _KERNEL,
    "test_a_call_in_a_foreign_convention_ends_its_process": _KERNEL,
    "test_guests_may_tighten_their_own_sandbox_and_never_loosen_it": _KERNEL,
    "test_no_call_that_reaches_deep_into_the_kernel": _KERNEL,
    "test_no_key_of_the_host_is_reached": _KERNEL,
    "test_no_look_into_another_process": _KERNEL,
    "test_no_mount_and_no_other_root": _KERNEL,
    "test_no_namespace_of_ones_own": _KERNEL,
    "test_there_is_no_capability_to_be_had": _KERNEL,
    "test_memory_that_cannot_be_reclaimed_is_refused": _KERNEL,
    "test_limits_of_the_process_cannot_be_raised": _KERNEL,
    "test_only_the_workspace_can_be_written": _KERNEL,
    "test_paths_that_climb_and_links_that_point_out_stay_inside": _KERNEL,
    "test_a_kernel_without_its_directory_lives": _KERNEL,
    "test_a_bomb_of_threads_is_an_error": _THREADS,
    "test_a_fork_bomb_in_python_ends_at_the_limit": _THREADS,
    "test_a_fork_bomb_in_the_shell_ends_at_the_limit": _THREADS,
    "test_many_that_spin_share_one_core_and_leave_the_neighbour_its_own[processes]": _THREADS,
    "test_process_1_reaps_any_number_of_orphans": _THREADS,
    "test_a_child_that_takes_too_much_is_killed_alone_and_noted": _MEMORY,
    "test_nobody_in_a_sandbox_escapes_being_killed_for_memory": _MEMORY,
    "test_two_processes_that_take_more_only_together_do_not_both_live": _MEMORY,
    "test_a_million_empty_files_end_at_the_cap_on_inodes": _FILES,
    "test_home_work_and_tmp_are_full_together": _FILES,
    "test_nothing_of_proc_can_be_written": _PROC_OF_ITS_OWN,
    "test_only_harmless_devices_exist_and_no_other_can_be_made": _PROC_OF_ITS_OWN,
    "test_proc_tells_nothing_that_only_the_host_should_know": _PROC_OF_ITS_OWN,
    "test_sys_is_not_there_and_cgroups_cannot_be_reached": _PROC_OF_ITS_OWN,
}

# A case takes four seconds over gVisor. These run always, some 100 seconds: what its kernel decides, and not ours.
# The others, which find the same kernel host and the same gateway as over runc, run when they are asked for.
ALWAYS_OVER_GVISOR = frozenset(
    (
        "test_a_crash_in_c_code_ends_the_session_with_its_signal",
        "test_a_daemon_with_a_session_of_its_own_dies_with_the_sandbox",
        "test_a_file_larger_than_the_workspace_is_an_error",
        "test_a_fork_bomb_does_not_outlive_its_session",
        "test_an_abort_leaves_no_core_file_and_runs_no_handler",
        "test_an_endless_loop_is_interrupted_and_the_session_lives",
        "test_descriptors_end_at_their_limit_and_print_still_works",
        "test_full_shared_memory_is_an_error_and_a_hole_in_it_a_signal",
        "test_memory_is_limited_with_swap_and_all",
        "test_metadata_services_are_out_of_reach_in_every_spelling",
        "test_names_are_not_resolved_and_resolvers_not_reached",
        "test_no_socket_of_the_host_is_in_the_file_system",
        "test_nobody_outside_reaches_what_listens_inside",
        "test_nothing_a_session_leaves_is_seen_by_the_next",
        "test_one_session_finds_nothing_of_another",
        "test_programs_that_a_cell_starts_inherit_neither_link_nor_birth_socket",
        "test_the_host_is_still_itself",
        "test_the_hosts_loopback_is_not_the_sandboxs",
        "test_the_mount_table_names_no_directory_but_the_documented_ones",
        "test_too_much_memory_ends_the_session_with_limit_and_peak",
    )
)

DIFFERENCES = {"native": {}, "docker": DOCKER, "docker-runsc": GVISOR}


def left_out(driver: str, case: str) -> str:
    """Why this case, a test's name or that of one of its parameters, does not stand over a driver; "" if it does."""
    name, _, parameters = case.partition("[")
    inside = parameters.removesuffix("]").removeprefix(driver).removeprefix("-")
    found = DIFFERENCES.get(driver, {})
    return found.get(name) or found.get(f"{name}[{inside}]", "")

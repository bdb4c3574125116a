"""The part of the table of routes that is for agents; `gateway.app` has the whole."""

from __future__ import annotations

from cellgate.access.scopes import Scope
from cellgate.gateway.openapi import STREAMED, Operation, Route
from cellgate.gateway.schemas import COUNT, TEXT, words_of
from cellgate.gateway.v1.admin import AdminHandler, AdminSessionHandler
from cellgate.gateway.v1.executes import MAX_CHARS, EventsHandler, ExecuteHandler, VariablesHandler
from cellgate.gateway.v1.facts import IsolationHandler, LanguagesHandler, LimitsHandler, ProfilesHandler
from cellgate.gateway.v1.files import ArchiveHandler, FileHandler, FilesHandler
from cellgate.gateway.v1.runs import BatchHandler, RunHandler, RunScriptHandler
from cellgate.gateway.v1.scripts import MAX_VERSION, DiffHandler, ScriptHandler, ScriptsHandler, VersionsHandler
from cellgate.gateway.v1.sessions import InterruptHandler, RestartHandler, SessionHandler, SessionsHandler
from cellgate.gateway.v1.shares import ShareHandler
from cellgate.gateway.v1.validate import ValidateHandler
from cellgate.live.files import ARCHIVES, MAX_LISTED
from cellgate.sessions.states import State
from cellgate.wire.agent import MAX_VARIABLES
from cellgate.wire.rendering import MIN_CHARS

__all__ = ["BEGINS", "STARTS", "V1_ROUTES"]

# What may become of a kernel that is started again, and of one that is asked for.
STARTS = ("driver_unavailable", "link_closed", "sandbox_gone", "sandbox_start_failed")
BEGINS = (
    *STARTS, "draining", "quota_used_up", "server_full", "storage_full", "too_many_sessions", "unknown_kernel"
)  # fmt: skip

_UNKNOWN = ("unknown_session",)
_NO_SCRIPT = ("unknown_script",)
_VERSION = {"type": "integer", "minimum": 1, "maximum": MAX_VERSION}
_FILES = (  # what may be wrong with any file
    *_UNKNOWN, "bad_path", "no_such_file", "not_a_file", "not_a_directory", "not_permitted", "workspace_gone",
    "files_failed", "not_answered",
)  # fmt: skip
_CHANGES = ("already_there", "disk_full", "file_too_large")
_OF_RUNS = (*BEGINS, "bad_limit", "too_many_waiting", *_FILES[1:], *_CHANGES)
_LISTED = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}
_RENDER = {
    "render": words_of("text"), "max_chars": {"type": "integer", "minimum": MIN_CHARS, "maximum": MAX_CHARS},
}  # fmt: skip
_FILTERS = {
    "state": words_of(*(state.value for state in State)), "name": TEXT, "kernel": TEXT, "language": TEXT,
}  # fmt: skip

V1_ROUTES: tuple[Route, ...] = (
    Route("/v1/sessions", SessionsHandler, {
        "GET": Operation(
            "your sessions, those that the query's words fit", {200: "Sessions"}, ("usage",),
            query=_FILTERS, scope=Scope.OBSERVE,
        ),
        "POST": Operation(
            "a session; of requests with one idempotency key, one", {201: "Session", 200: "Session"},
            ("bad_limit", *BEGINS), body="SessionWish", scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/sessions/{session_id}", SessionHandler, {
        "GET": Operation("all that is known of one", {200: "Session"}, _UNKNOWN, scope=Scope.OBSERVE),
        "PATCH": Operation(
            "its name, its metadata, its limits of time", {200: "Session"},
            (*_UNKNOWN, "bad_limit", "storage_full"), body="SessionChange", scope=Scope.EXECUTE,
        ),
        "DELETE": Operation("end it", {204: ""}, _UNKNOWN, scope=Scope.EXECUTE),
    }),
    Route("/v1/sessions/{session_id}/interrupt", InterruptHandler, {
        "POST": Operation("interrupt what runs", {204: ""}, _UNKNOWN, scope=Scope.EXECUTE),
    }),
    Route("/v1/sessions/{session_id}/restart", RestartHandler, {
        "POST": Operation(
            "lose all variables, keep the id", {200: "Session"}, (*_UNKNOWN, *STARTS), scope=Scope.EXECUTE
        ),
    }),
    Route("/v1/sessions/{session_id}/share", ShareHandler, {
        "POST": Operation(
            "a link for somebody without a token, to watch it", {200: "Share"}, _UNKNOWN, scope=Scope.EXECUTE
        ),
    }),
    Route("/v1/sessions/{session_id}/files", FilesHandler, {
        "GET": Operation(
            "what is in a directory", {200: "Files"}, (*_FILES, "usage"),
            query={"path": TEXT, "after": TEXT, "max": _LISTED}, scope=Scope.FILES,
        ),
        "POST": Operation(
            "make a directory, or move something", {201: "File", 200: "File"}, (*_FILES, *_CHANGES),
            body="FileChange", scope=Scope.FILES,
        ),
    }),
    Route("/v1/sessions/{session_id}/files/{path}", FileHandler, {
        "GET": Operation(
            "a file, or a range of it; HEAD tells what it is", {200: "Bytes", 206: "Bytes", 304: ""},
            (*_FILES, "bad_range", "file_too_large"), media=STREAMED, scope=Scope.FILES,
        ),
        "PUT": Operation(
            "a file, with the directories above it, in place of one that is there", {200: "File"},
            (*_FILES, *_CHANGES), body="Bytes", body_media=STREAMED, scope=Scope.FILES,
        ),
        "DELETE": Operation(
            "remove a file or directory", {204: ""}, (*_FILES, "not_empty", "usage"),
            query={"recursive": words_of("true", "false")}, scope=Scope.FILES,
        ),
    }),
    Route("/v1/sessions/{session_id}/archive", ArchiveHandler, {
        "GET": Operation(
            "a directory, packed", {200: "Bytes"}, (*_FILES, "usage"),
            query={"path": TEXT, "format": words_of(*ARCHIVES)}, media=STREAMED, scope=Scope.FILES,
        ),
        "PUT": Operation(
            "unpack a tar or zip into a directory: all of it or nothing", {200: "Unpacked"},
            (*_FILES, *_CHANGES, "bad_archive", "usage"), query={"path": TEXT, "format": words_of(*ARCHIVES)},
            body="Bytes", body_media=STREAMED, scope=Scope.FILES,
        ),
    }),
    Route("/v1/sessions/{session_id}/execute", ExecuteHandler, {
        "POST": Operation(
            "run code; what became of it, or with `Accept: text/event-stream` its events as they come",
            {200: "Result"}, (*_UNKNOWN, "draining", "too_many_clients"), body="CellWish", query=_RENDER,
            scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/sessions/{session_id}/events", EventsHandler, {
        "GET": Operation(
            "what was said behind an event, a page of it; or with `Accept: text/event-stream` all, as it comes",
            {200: "Events"}, (*_UNKNOWN, "too_many_clients", "usage"), query={"since": COUNT}, scope=Scope.OBSERVE,
        ),
    }),
    Route("/v1/sessions/{session_id}/variables", VariablesHandler, {
        "GET": Operation(
            "what names the kernel has; with `name` one of them in detail", {200: "Variables"},
            (*_UNKNOWN, "not_answered", "usage"),
            query={"name": TEXT, "max": {"type": "integer", "minimum": 1, "maximum": MAX_VARIABLES}},
            scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/run", RunHandler, {
        "POST": Operation(
            "run code in a session of its own, of which nothing is left; waits for a turn if there are many",
            {200: "Run"}, _OF_RUNS, body="RunWish", query=_RENDER, scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/batch", BatchHandler, {
        "POST": Operation(
            "many one-shots beside each other, or many cells one after the other", {200: "Batch"},
            (*_OF_RUNS, "too_many_clients", "unknown_session"), body="BatchWish", scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/scripts", ScriptsHandler, {
        "GET": Operation("your scripts, the newest version of each", {200: "Scripts"}, scope=Scope.OBSERVE),
        "POST": Operation(
            "keep code under a name; a new version, if it is new", {201: "Script", 200: "Script"},
            ("unknown_kernel", "storage_full"), body="ScriptWish", scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/scripts/{script}", ScriptHandler, {
        "GET": Operation(
            "its newest version, or another", {200: "Script"}, (*_NO_SCRIPT, "usage"),
            query={"version": _VERSION}, scope=Scope.OBSERVE,
        ),
        "DELETE": Operation("with all its versions", {204: ""}, (*_NO_SCRIPT, "storage_full"), scope=Scope.EXECUTE),
    }),
    Route("/v1/scripts/{script}/run", RunScriptHandler, {
        "POST": Operation(
            "run it, as `/v1/run` would its code", {200: "Run"}, (*_NO_SCRIPT, *_OF_RUNS), body="ScriptRunWish",
            query=_RENDER, scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/scripts/{script}/versions", VersionsHandler, {
        "GET": Operation("those that are kept, newest first", {200: "ScriptVersions"}, _NO_SCRIPT, scope=Scope.OBSERVE),
    }),
    Route("/v1/scripts/{script}/diff", DiffHandler, {
        "GET": Operation(
            "how two versions differ; by default the newest from the one before", {200: "ScriptDiff"},
            (*_NO_SCRIPT, "usage"), query={"from": _VERSION, "to": _VERSION}, scope=Scope.OBSERVE,
        ),
    }),
    Route("/v1/validate", ValidateHandler, {
        "POST": Operation(
            "judge code without running it", {200: "Verdict"}, ("bad_limit", "policy_error"), body="Code",
            scope=Scope.EXECUTE,
        ),
    }),
    Route("/v1/languages", LanguagesHandler, {
        "GET": Operation("what can be run, and with which packages", {200: "Languages"}, scope=Scope.OBSERVE),
    }),
    Route("/v1/limits", LimitsHandler, {
        "GET": Operation("what each thing may use at most, and why", {200: "Limits"}, scope=Scope.OBSERVE),
    }),
    Route("/v1/profiles", ProfilesHandler, {
        "GET": Operation("sets of limits by name", {200: "Profiles"}, scope=Scope.OBSERVE),
    }),
    Route("/v1/isolation", IsolationHandler, {
        "GET": Operation("how well sandboxes isolate here, as measured", {200: "Isolation"}, scope=Scope.OBSERVE),
    }),
    Route("/v1/admin", AdminHandler, {
        "GET": Operation(
            "everybody's sessions in numbers, and how the last ended", {200: "Overview"}, scope=Scope.ADMIN
        ),
    }),
    Route("/v1/admin/sessions/{session_id}", AdminSessionHandler, {
        "DELETE": Operation("end anybody's", {204: ""}, _UNKNOWN, scope=Scope.ADMIN),
    }),
)  # fmt: skip

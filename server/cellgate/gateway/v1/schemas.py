"""What agents send and are answered, for the OpenAPI document. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cellgate.gateway.schemas import COUNT, DATE, POLICY, TEXT, Schema, limits_of, list_of, object_of, ref, words_of
from cellgate.gateway.v1 import runs, validate, wishes
from cellgate.gateway.v1.scripts import MAX_VERSION
from cellgate.live.files import KINDS
from cellgate.live.scripts import MAX_CODE_BYTES, SCRIPT_NAME
from cellgate.policy.facts import LANGUAGES
from cellgate.policy.verdicts import Severity
from cellgate.sessions.states import CellReason, State
from cellgate.settings import PROFILES, Settings
from cellgate.wire.agent import MAX_EXPRESSIONS, MAX_ID_CHARS, MAX_NAME_CHARS

__all__ = ["v1_schemas"]

_NUMBER: Schema = {"type": "number"}
_ANY_OBJECT: Schema = {"type": "object"}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_MAYBE_TRUE: Schema = {"type": ["boolean", "null"]}


def _words(most: int) -> Schema:
    return {"type": ["array", "null"], "items": {"type": "string", "maxLength": 4096}, "maxItems": most}


_NUMBERS: Schema = {"type": "object", "additionalProperties": _NUMBER}
_WORD: Schema = {"type": ["string", "null"], "maxLength": 100, "pattern": r"^[A-Za-z0-9._+ -]*$"}
_NAME: Schema = {"type": ["string", "null"], "maxLength": wishes.MAX_NAME_CHARS}
_METADATA: Schema = {"type": ["object", "null"], "description": f"up to {wishes.MAX_METADATA_BYTES} bytes as JSON"}
_ENV: Schema = {
    "type": ["object", "null"],
    "maxProperties": wishes.MAX_ENV,
    "propertyNames": {"pattern": f"^{wishes.ENV_NAME.pattern}$"},
    "additionalProperties": {"type": "string", "maxLength": wishes.MAX_VALUE_CHARS},
}

_FILE = object_of({
    "name": TEXT,
    "type": words_of(*KINDS),
    "size": COUNT,
    "modified": {**_NUMBER, "description": "seconds since 1970"},
    "mode": COUNT,
    "version": {**TEXT, "description": "another one whenever the file has changed; its ETag"},
})  # fmt: skip
_CELL_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": (1 << 53) - 1}
_CELL: Mapping[str, Schema] = {
    "id": {
        **_MAYBE_TEXT, "minLength": 1, "maxLength": MAX_ID_CHARS, "pattern": "^[ -~]+$",
        "description": "the cell's name and idempotency key",
    },
    "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0, "description": "seconds"},
    "store_history": _MAYBE_TRUE,
    "silent": _MAYBE_TRUE,
    "stop_on_error": _MAYBE_TRUE,
    "limits": object_of(
        {}, {"output_bytes_per_cell": _CELL_LIMIT, "output_messages_per_cell": _CELL_LIMIT}, additionalProperties=False
    ),
    "expressions": {
        "type": "object", "maxProperties": MAX_EXPRESSIONS, "additionalProperties": TEXT,
        "propertyNames": {"minLength": 1, "maxLength": MAX_NAME_CHARS},
    },
    "diff": {**_MAYBE_TRUE, "description": "tell how the names in the kernel have changed"},
}  # fmt: skip
_RESULT: Mapping[str, Schema] = {
    "cell": TEXT,
    "status": words_of("ok", "error", "aborted"),
    "reason": words_of(*(reason.value for reason in CellReason)),
    "sentence": TEXT,
    "facts": _ANY_OBJECT,
    "count": {"type": ["integer", "null"]},
    "stdout": TEXT,
    "stderr": TEXT,
    "result": {"type": ["object", "null"]},
    "outputs": list_of(object_of({"data": _ANY_OBJECT, "metadata": _ANY_OBJECT})),
    "error": {"type": ["object", "null"]},
    "notices": list_of(object_of({"note": TEXT, "text": TEXT, "facts": _ANY_OBJECT})),
    "metrics": _NUMBERS,
    "truncated": {"type": ["object", "null"]},
    "expressions": _ANY_OBJECT,
    "diff": {"type": ["object", "null"]},
    "seq": COUNT,
}
_RENDERED = {**{name: _RESULT[name] for name in ("cell", "status", "reason", "seq")}, "text": TEXT}
_BESIDE: Mapping[str, Schema] = {"value": {}, "files": _ANY_OBJECT, "is_cached": {"type": "boolean"}}
_FILES_IN: Schema = {
    "type": ["object", "null"],
    "maxProperties": runs.MAX_FILES,
    "additionalProperties": {
        "oneOf": [
            object_of({"text": TEXT}, additionalProperties=False),
            object_of({"base64": {"type": "string", "contentEncoding": "base64"}}, additionalProperties=False),
        ]
    },
    "description": "by path; there before the code runs",
}
_RUN: Mapping[str, Schema] = {
    "inputs": {"description": "any JSON, for the function `calculate(inputs)` of the code, which returns the `value`"},
    "files": _FILES_IN,
    "fetch": {**_words(runs.MAX_FILES), "description": "paths of files that are sent with the answer"},
    "requirements": {**_words(runs.MAX_REQUIREMENTS), "description": "as `numpy>=2`: checked, and never installed"},
    "timeout": {"type": ["number", "null"], "minimum": runs.MIN_SECONDS, "maximum": runs.MAX_SECONDS},
    "cache": {**_MAYBE_TRUE, "description": "take the outcome of the same one-shot, if it is known, and keep this one"},
}
_SCRIPT = {"name": TEXT, "version": COUNT, "kernel": TEXT, "description": TEXT, "created": DATE}
_SHORT = {
    "id": TEXT,
    "name": TEXT,
    "metadata": _ANY_OBJECT,
    "kernel": TEXT,
    "language": TEXT,
    "state": words_of(*(state.value for state in State)),
    "incarnation": COUNT,
    "created": DATE,
    "last_activity": DATE,
    "clients": COUNT,
}
_FULL = {
    **_SHORT,
    "template": TEXT,
    "profile": TEXT,
    "limits": _NUMBERS,
    "env": list_of(TEXT),
    "idempotency_key": {"type": ["string", "null"]},
    "policy": {**_ANY_OBJECT, "description": "what was asked for on top of the server's"},
    "tier": {"type": ["string", "null"]},
    "expires": object_of({"at": DATE, "why": words_of("idle", "lifetime")}),
    "queue": object_of({"running": {"type": ["string", "null"]}, "waiting": COUNT}),
    "events": object_of({"first": COUNT, "last": COUNT}),
    "usage": {"type": ["object", "null"]},
}


def _of_session(settings: Settings) -> dict[str, Schema]:
    """What a session and a one-shot may ask for."""
    return {
        "kernel": {**_WORD, "description": "a kernelspec's name; the default without one"},
        "language": {**_WORD, "description": "the first kernel of it"},
        "template": {**_WORD, "description": "what is loaded already"},
        "profile": {"type": ["string", "null"], "enum": [*PROFILES, None]},
        "limits": limits_of(settings),
        "env": _ENV,
        "policy": POLICY,
    }


def v1_schemas(settings: Settings) -> dict[str, Schema]:
    of_session = _of_session(settings)
    return {
        "File": _FILE,
        "Files": object_of({"path": TEXT, "entries": list_of(_FILE), "more": {"type": "boolean"}}),
        "FileChange": object_of({}, {"make_directory": TEXT, "rename": TEXT, "to": TEXT}),
        "Unpacked": object_of({"entries": COUNT, "bytes": COUNT}),
        "Bytes": {},
        "SessionWish": object_of({}, {
            **of_session,
            "name": _NAME,
            "metadata": _METADATA,
            "idempotency_key": {"type": ["string", "null"], "maxLength": wishes.MAX_KEY_CHARS},
        }, additionalProperties=False),
        "Code": object_of(
            {"code": {"type": "string", "maxLength": validate.MAX_CODE_BYTES}},
            {"language": {"type": ["string", "null"], "enum": [*LANGUAGES, None]}, "policy": POLICY},
            additionalProperties=False,
        ),
        "Verdict": object_of({
            "allowed": {"type": "boolean"},
            "policy": TEXT,
            "findings": list_of(object_of({
                "rule": TEXT, "severity": words_of(*(severity.value for severity in Severity)),
                "line": COUNT, "column": COUNT, "end_line": COUNT, "end_column": COUNT,
                "seen": TEXT, "message": TEXT, "hint": TEXT, "part": TEXT,
            })),
            "more": COUNT,
            "metrics": object_of({"code_bytes": COUNT, "nodes": COUNT, "depth": COUNT}),
        }),
        "SessionChange": object_of({}, {
            "name": _NAME, "metadata": _METADATA, "limits": limits_of(settings, *wishes.CHANGEABLE_LIMITS),
        }, additionalProperties=False),
        "Session": object_of(_FULL),
        "Sessions": object_of({"sessions": list_of(object_of(_SHORT))}),
        "Share": object_of({"url": TEXT, "token": TEXT}),
        "Overview": object_of({
            "server": _ANY_OBJECT,
            "sessions": list_of(object_of({
                **{name: _SHORT[name] for name in ("id", "name", "kernel", "state", "incarnation", "created")},
                "principal": TEXT, "clients": COUNT, "waiting": COUNT, "is_running": {"type": "boolean"},
                **{name: {"type": ["number", "null"]} for name in ("memory_bytes", "cpu_seconds", "journal_bytes")},
                "limits": _NUMBERS,
            })),
            "deaths": list_of(_ANY_OBJECT),
        }),
        "CellWish": object_of({"code": TEXT}, _CELL, additionalProperties=False),
        "Result": {"anyOf": [object_of(_RESULT), object_of(_RENDERED)]},
        "Events": object_of({"events": list_of(_ANY_OBJECT), "since": COUNT, "end": COUNT}),
        "RunWish": object_of({"code": TEXT}, {**_RUN, **of_session}, additionalProperties=False),
        "ScriptRunWish": object_of(
            {},
            {
                "version": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_VERSION},
                **_RUN,
                **{name: of_session[name] for name in ("profile", "limits", "env", "policy")},
            },
            additionalProperties=False,
        ),
        "Run": {"anyOf": [object_of({**result, **_BESIDE}) for result in (_RESULT, _RENDERED)]},
        "BatchWish": object_of(
            {},
            {
                "runs": list_of(ref("RunWish"), maxItems=runs.MAX_BATCH),
                "cells": list_of(ref("CellWish"), maxItems=runs.MAX_BATCH),
                "session": {**_MAYBE_TEXT, "maxLength": 64, "description": "that runs the cells; else a fresh one"},
                "on_error": {"type": ["string", "null"], "enum": ["stop", "continue", None]},
                **of_session,
            },
            additionalProperties=False,
        ),
        "Batch": object_of({
            "items": {"type": "array", "items": {"type": ["object", "null"]}},
            "done": COUNT,
            "failed": COUNT,
            "is_complete": {"type": "boolean"},
        }),
        "Variables": object_of({"variables": list_of(_ANY_OBJECT), "more": COUNT}),
        "ScriptWish": object_of(
            {
                "name": {"type": "string", "pattern": f"^{SCRIPT_NAME.pattern}$"},
                "code": {"type": "string", "description": f"up to {MAX_CODE_BYTES} bytes"},
            },
            {"kernel": _WORD, "language": _WORD},
            additionalProperties=False,
        ),
        "Script": object_of({**_SCRIPT, "code": TEXT}),
        "Scripts": object_of({"scripts": list_of(object_of(_SCRIPT))}),
        "ScriptVersions": object_of({"versions": list_of(object_of(_SCRIPT))}),
        "ScriptDiff": object_of({"from": COUNT, "to": COUNT, "diff": TEXT}),
        "Languages": object_of({"languages": list_of(object_of({
            "name": TEXT,
            "kernels": list_of(object_of({
                "name": TEXT, "title": TEXT, "template": TEXT, "is_bridged": {"type": "boolean"},
                "packages": {"type": ["object", "null"], "additionalProperties": TEXT},
            })),
        }))}),
        "Limits": object_of({"limits": list_of(object_of({
            "name": TEXT, "of": words_of("sandbox", "session", "server"),
            "value": _NUMBER, "least": _NUMBER, "unit": TEXT, "why": TEXT,
        }))}),
        "Profiles": object_of({"default": TEXT, "profiles": {"type": "object", "additionalProperties": _NUMBERS}}),
        "Isolation": object_of({
            "driver": TEXT,
            "standing": words_of("ok", "missing", "unmeasured"),
            "tier": words_of("own_kernel", "untrusted", "trusted", "none"),
            "verdict": TEXT,
            "findings": list_of(object_of({
                "id": TEXT, "layer": TEXT, "title": TEXT, "promised": {"type": "boolean"},
                "mark": words_of("holds", "weaker", "missing", "unknown"), "seen": TEXT,
            })),
            "caveats": list_of(TEXT),
        }),
    }  # fmt: skip

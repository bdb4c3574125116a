"""The rules: one row each, with a sentence of why and the examples that hold it to that; which fact stands for which.

Knows no syntax (a reader's part) and nobody's opinion (a policy's): a rule only says what a fact is about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from cellgate.policy.facts import Kind, Seen
from cellgate.policy.names import HARMLESS_DUNDERS, MAGICS, PYTHON, SHELL, Words
from cellgate.policy.words import OTHERS

__all__ = ["CATEGORIES", "RULES", "WORDS", "Rule", "rules_as_markdown", "rules_of"]


@dataclass(frozen=True)
class Rule:
    """One thing that a policy can have an opinion of."""

    id: str
    category: str
    says: str  # goes on from what was seen: "os.system" "starts a program"
    why: str  # a sentence for whoever writes a policy
    hint: str  # what would pass; for whoever wrote the code
    fires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # language -> code in which it is found
    silent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # language -> code alike in which it is not


# What each category is about. A policy may name a category wherever it may name a rule.
CATEGORIES = {
    "host": "what no sandbox allows",
    "programs": "programs beside the kernel",
    "remote": "other hosts; a sandbox has no network",
    "files": "files of the sandbox",
    "dynamic": "code that no reader can see, because it is made while it runs",
    "interpreter": "the inside of the interpreter, by which every other rule is evaded",
    "native": "code that no interpreter looks after",
    "modules": "which modules may be loaded",
    "notebook": "IPython's own commands, and the person in front",
    "size": "what would cost more to read than it is worth",
    "text": "code that is not what it seems",
    "messages": "messages that are no cells",
}


def _python(*examples: str) -> dict[str, tuple[str, ...]]:
    return {"python": examples}


_ROWS = (
    Rule(
        "host_door",
        "host",
        "is a door to the host that no sandbox has",
        "Sockets of container engines, memory devices and the kernel's levers are looked for by code that wants out.",
        "leave it out: it is not there",
        {
            "python": (
                "open('/var/run/docker.sock')",
                "p = '/proc/sysrq-trigger'",
                "x = '/sys/fs/cgroup/x/' + 'release_agent'",
            ),
            "bash": ("cat /dev/mem", "echo x > /proc/sys/kernel/core_pattern"),
        },
        {"python": ("open('/proc/self/status')", "open('/dev/null')"), "bash": ("cat /proc/cpuinfo",)},
    ),
    Rule(
        "metadata_address",
        "host",
        "is the address of a cloud's metadata service",
        "It gives a machine's own credentials to whoever asks from it; a sandbox cannot, and has no reason to.",
        "leave it out: no sandbox reaches it",
        {
            "python": ("u = 'http://169.254.169.254/latest/meta-data/'",),
            "bash": ("curl http://metadata.google.internal/",),
        },
        {"python": ("u = 'http://example.org/169'",)},
    ),
    Rule(
        "privileged",
        "host",
        "needs privileges that no sandbox has",
        "It fails in every sandbox, and is the first step of most ways out of a bad one.",
        "leave it out: everything runs as one user without privileges",
        {
            "python": ("import os\nos.setuid(0)", "from os import chroot as c\nc('/')", "!sudo ls"),
            "bash": ("sudo rm x", "mount -t proc proc /mnt"),
        },
        {"python": ("import os\nos.getuid()",), "bash": ("echo sudo",)},
    ),
    Rule(
        "fork_loop",
        "host",
        "forks without an end",
        "A fork bomb only meets the limit of processes, and the kernel with it.",
        "start a bounded number of processes",
        {
            "python": (
                "import os\nwhile True:\n    os.fork()",
                "while 1:\n    import os as o\n    f = o.fork\n    f()",
            ),
            "bash": (":(){ :|:& };:",),
        },
        {"python": ("import os\nif os.fork() == 0:\n    pass",), "bash": ("f() { ls; }; f",)},
    ),
    Rule(
        "ends_kernel",
        "programs",
        "ends the kernel, or other processes of the sandbox",
        "The variables are gone with the kernel; `exit()` and an exception end a cell without that.",
        "let the cell end by itself; interrupt, restart and delete are the session's own",
        {
            "python": ("import os\nos._exit(1)", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
            "bash": ("kill -9 1",),
        },
        {"python": ("exit()", "raise SystemExit")},
    ),
    Rule(
        "process",
        "programs",
        "starts a program or a process",
        "Programs share the sandbox's limits, are ended with it, and are seen by no other rule.",
        "do it in the kernel's own process",
        _python(
            "import subprocess",
            "import os\no = os\no.system('ls')",
            "import os\ngetattr(os, 'sys' + 'tem')('ls')",
            "__import__('os').popen('ls')",
            "from os import execv as run_it\nrun_it('/bin/sh', [])",
            "%%ruby\nputs 1",
        ),
        _python("import os\nos.getpid()", "system = 1\nsystem", "from concurrent.futures import ThreadPoolExecutor"),
    ),
    Rule(
        "shell",
        "programs",
        "hands a line to the shell",
        "What a shell line starts is judged by its words, which a shell may change before it acts on them.",
        "say it in the kernel's own language",
        _python("!ls", "x = !pwd", "%%bash\nls", "get_ipython().system('ls')", "%sx ls"),
        _python("x = 1  # !ls", "s = '!ls'", "%time x = 1"),
    ),
    Rule(
        "network",
        "remote",
        "reaches for the network",
        "A sandbox has no network: a connection fails at once, a download brings nothing.",
        "bring the data with the session instead",
        {
            "python": (
                "import requests",
                "from urllib import request",
                "import socket as s\ns.socket()",
                "%pip install x",
            ),
            "bash": ("curl http://example.org", "pip install x"),
        },
        {"python": ("from urllib.parse import quote", "import http"), "bash": ("echo curl",)},
    ),
    Rule(
        "file_access",
        "files",
        "opens or looks at files",
        "A sandbox has its own files only; but who wants mere computation wants none.",
        "keep data in variables",
        {
            "python": ("open('x')", "from pathlib import Path\nPath('x').read_text()", "import os\nos.listdir('.')"),
            "bash": ("cat x",),
        },
        {"python": ("f.open_ended", "def f(open):\n    return open", "import os.path\nos.path.join('a', 'b')")},
    ),
    Rule(
        "file_change",
        "files",
        "creates, changes or removes files",
        "A sandbox has its own files only; but what one cell removes, the next may miss.",
        "keep data in variables",
        {
            "python": ("import os\nos.remove('x')", "import shutil\nshutil.rmtree('x')", "%%writefile x\ny"),
            "bash": ("rm x",),
        },
        {"python": ("x = ['a']\nx.remove('a')", "'a'.replace('a', 'b')")},
    ),
    Rule(
        "environment",
        "files",
        "reads or changes environment variables",
        "Settings and keys are often handed over in them.",
        "keep settings in variables of the language",
        _python("import os\nos.environ['HOME']", "from os import getenv"),
        _python("environ = 1\nenviron"),
    ),
    Rule(
        "dynamic_code",
        "dynamic",
        "runs code that is made while it runs",
        "What a string holds when it is run, no reader knows; a constant one is read and judged too.",
        "write the code itself; ast.literal_eval reads data",
        {
            "python": (
                "eval(x)",
                "exec('1')",
                "e = eval\ne('1')",
                "list(map(eval, xs))",
                "__builtins__['ev' + 'al']('1')",
                "%run x",
            ),
            "bash": ("eval $x", "python3 -c 1"),
        },
        {
            "python": (
                "import ast\nast.literal_eval('1')",
                "import re\nre.compile('x')",
                "def f(eval):\n    return eval(1)",
            )
        },
    ),
    Rule(
        "dynamic_import",
        "dynamic",
        "loads modules by means of its own",
        "Which module that is may depend on what happens while it runs.",
        "write an import statement",
        _python("__import__(x)", "import importlib", "from importlib import import_module", "%load_ext x"),
        _python("import os"),
    ),
    Rule(
        "deserialize",
        "dynamic",
        "makes objects out of bytes, which may say what is called for that",
        "A pickle is a program.",
        "json and csv carry data alone",
        _python("import pickle", "import pandas as pd\npd.read_pickle('x')", "from marshal import loads"),
        _python("import json\njson.loads('1')"),
    ),
    Rule(
        "computed_attribute",
        "dynamic",
        "takes an attribute whose name is made while it runs",
        "A name that is put together can be any name.",
        "write the attribute, or keep things in a dict",
        _python("getattr(x, name)", "f = getattr", "from operator import attrgetter", "import os\nvars(os)[n]"),
        _python("getattr(x, 'name')", "getattr(x, 'name', None)"),
    ),
    Rule(
        "changes_attributes",
        "dynamic",
        "sets or deletes attributes by name",
        "Changed modules and classes mean something else than what they say.",
        "assign to the attribute itself",
        _python("setattr(x, 'y', 1)", "delattr(x, 'y')", "object.__setattr__(x, 'y', 1)"),
        _python("x.y = 1"),
    ),
    Rule(
        "introspection",
        "interpreter",
        "looks inside the interpreter",
        "From any object there is a way over its class to every class, every module and every function.",
        "use what the object offers",
        _python(
            "().__class__.__bases__", "globals()", "f.__globals__", "import inspect", "getattr(x, '__cla' + 'ss__')"
        ),
        _python("x.__name__", "__name__", "super().__init__()"),
    ),
    Rule(
        "private_attribute",
        "interpreter",
        "is an attribute that its owner keeps for itself",
        "A leading underscore says so; modules keep other modules there.",
        "use what the object offers",
        _python(
            "x._private",
            "import random\nrandom._os",
            "self._x = 1",
            "getattr(x, '_y')",
            "match x:\n    case C(_y=z): pass",
        ),
        _python("x.public", "_x = 1", "x.__len__()"),
    ),
    Rule(
        "underscore_name",
        "interpreter",
        "is a name with a leading underscore",
        "RestrictedPython keeps those for its guards; here they mean nothing.",
        "choose a name without the underscore",
        _python("_x = 1\n_x"),
        _python("x_ = 1\nx_", "_"),
    ),
    Rule(
        "format_attribute",
        "interpreter",
        "takes attributes by a format string",
        "`'{0.__class__}'.format(x)` looks inside x without naming it in code.",
        "an f-string says the same in code",
        _python("'{0.__class__}'.format(x)", "s = '{x[__globals__]}'"),
        _python("'{0.name}'.format(x)", "f'{x.name}'", "'{}'.format(x)"),
    ),
    Rule(
        "native_code",
        "native",
        "calls code that no interpreter looks after",
        "It reads and writes any memory of the kernel; only the sandbox holds it.",
        "say it in the kernel's own language",
        _python("import ctypes", "from cffi import FFI", "import numpy\nnumpy.ctypeslib"),
        _python("import struct"),
    ),
    Rule(
        "module",
        "modules",
        "is a module that this policy does not allow",
        "A list of modules bounds what code can do better than any list of functions.",
        "",
        _python("import left_pad", "from left_pad import pad", "from . import x", "import math, left_pad as math"),
        _python("import math", "from collections.abc import Mapping"),
    ),
    Rule(
        "star_import",
        "modules",
        "imports all names of a module",
        "Which names that binds, no reader knows.",
        "name what you import",
        _python("from math import *", "from os import *"),
        _python("from math import pi"),
    ),
    Rule(
        "name",
        "modules",
        "is a name that this policy denies",
        "A policy may list functions, classes and attributes by name.",
        "",
    ),
    Rule(
        "magic",
        "notebook",
        "is a magic that this policy does not allow",
        "Magics reach files, programs and the shell by other names.",
        "",
        _python("%lsmagic", "%%unheard_of\nx", "%unheard_of", "get_ipython().run_line_magic('lsmagic', '')", "lsmagic"),
        _python("%time x = 1", "%%timeit\nx = 1", "%matplotlib inline", "len?"),
    ),
    Rule(
        "ipython",
        "notebook",
        "uses IPython from inside",
        "The shell object runs code, commands and magics, and holds all variables.",
        "write the code itself",
        _python("ip = get_ipython()", "import IPython"),
        _python("from IPython.display import display", "%time x = 1"),
    ),
    Rule(
        "browser",
        "notebook",
        "runs in the browser of whoever looks",
        "Scripts and frames act in the name of the person who sees the output, and reach what their browser reaches.",
        "show text, tables and pictures",
        _python("from IPython.display import HTML\nHTML('<script>')", "%%js\nfetch(1)", "%%html\nx"),
        _python("from IPython.display import display\ndisplay(1)", "HTML = 1\nHTML"),
    ),
    Rule(
        "input",
        "notebook",
        "asks the person in front",
        "Where nobody sits, the cell waits until its time is over.",
        "put the value into the code",
        _python("input()", "import getpass"),
        _python("input_shape = 1", "def f(input):\n    return input(1)"),
    ),
    Rule(
        "code_bytes",
        "size",
        "bytes are more than one cell may have",
        "Code of this length is data, and belongs in a file.",
        "split the cell, or bring the data as a file",
        _python("x = '" + "y" * 1_100_000 + "'"),
        _python("x = '" + "y" * 10_000 + "'"),
    ),
    Rule(
        "nesting",
        "size",
        "levels of nesting are more than can be read",
        "Deeply nested code overflows readers; people write none.",
        "name the inner parts",
        _python("x = " + "(" * 150 + ")" * 150, "x = " + "-" * 100_000 + "1"),
        _python("x = " + "(" * 30 + "1" + ")" * 30, "x = '" + "(" * 1000 + "'", "# " + "(" * 1000),
    ),
    Rule(
        "literal_bytes",
        "size",
        "bytes are more than one literal may have",
        "A payload is often carried in one long string.",
        "bring the data as a file",
        _python("x = '" + "y" * 600_000 + "'"),
        _python("x = '" + "y" * 10_000 + "'"),
    ),
    Rule(
        "hidden_text",
        "text",
        "is a character that makes text read as other text",
        "With bidirectional controls an editor shows other code than the one that runs.",
        "remove the character, or write it as an escape",
        _python("access = 'user\u202e # admin'"),
        _python("x = '\\u202e'", "x = 'שלום'"),
    ),
    Rule(
        "unparsed",
        "text",
        "is where reading ended",
        "What does not parse does not run: the kernel says it better. Nothing of such a cell was judged but its size.",
        "",
        _python("x = ", "def f(:\n  pass", "x = '\0'"),
        _python("x = 1", "!ls", "await x"),
    ),
    Rule(
        "unread",
        "text",
        "is a language that nobody here can read",
        "Of such code only the size was judged.",
        "",
        {"julia": ("println(1)",)},
        _python("x = 1"),
    ),
    Rule(
        "message_type",
        "messages",
        "is a message that this policy does not allow",
        "A debugger and the messages of widgets carry code too, or are read by code that a cell left behind.",
        "",
    ),
)
RULES: dict[str, Rule] = {rule.id: rule for rule in _ROWS}

# What is known of each language's names. A language without a row is judged by its size alone.
WORDS: dict[str, Words] = {"python": PYTHON, "bash": SHELL, **OTHERS}

_DOORS = re.compile(
    r"/(var/)?run/(docker|containerd|crio|podman)\b.*\.sock|docker\.sock|/dev/k?mem\b|/dev/(sd[a-z]|nvme\d|kmsg|port\b)"
    r"|/proc/(sysrq-trigger|kcore|kmsg|1/(root|environ|mem|fd|cwd|ns)\b|sys/(kernel/(core_pattern|modprobe|hotplug)|fs/binfmt_misc|vm/drop_caches))"
    r"|/sys/(kernel/uevent_helper|firmware/efi|fs/cgroup/.*release_agent)|\brelease_agent$|^/etc/(shadow|gshadow|sudoers)\b"
)
_MARKUP = re.compile(r"<(script|iframe)\b|\bjavascript:|^text/html$|^application/javascript$", re.IGNORECASE)
_SUSPECT = re.compile(r"[/.<:]|\{[^{}]*_|release_agent|fd00")  # what all of these have; quick to say no
_METADATA = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|fd00:ec2::254|100\.100\.100\.200")
_FORMAT = re.compile(r"\{[^{}]*[.\[]_[^{}]*\}")
_NO_WORDS = Words()
_TEXT = Kind.TEXT
_COMPUTED = {
    "getattr": "computed_attribute",
    "import": "dynamic_import",
    "command": "dynamic_code",
    "name": "dynamic_code",
}


def rules_of(seen: Seen) -> tuple[str, ...]:
    """The rules that have something to say of a fact, whatever a policy makes of it."""
    if seen.kind is _TEXT:
        return _rules_of_text(seen.text, seen.language)
    return _rules_of(seen.kind, seen.name, seen.language)


@lru_cache(maxsize=8192)  # a server sees the same few hundred names again and again
def _rules_of(kind: Kind, name: str, language: str) -> tuple[str, ...]:
    words = WORDS.get(language, _NO_WORDS)
    match kind:
        case Kind.IMPORT | Kind.USE:
            return _some(words.rule_of_name(name))
        case Kind.STAR_IMPORT:
            return ("star_import", *_some(words.rule_of_name(name)))
        case Kind.ATTRIBUTE:
            rule = words.attributes.get(name)
            if rule is None and name.startswith("_") and name not in HARMLESS_DUNDERS:
                rule = "private_attribute"
            return _some(rule)
        case Kind.NAME:
            special = words.attributes.get(name) if name.startswith("__") else None  # a class that says what it is
            return (*_some(special), *(("underscore_name",) if name.startswith("_") and name.strip("_") else ()))
        case Kind.COMMAND:
            return _some(words.commands.get(name))
        case Kind.MAGIC:
            magic = MAGICS.get(name)
            return _some(magic.rule if magic else None)
        case Kind.COMPUTED:
            return (_COMPUTED[name],)
        case Kind.PATTERN | Kind.LARGE:
            return (name,)
        case Kind.UNPARSED:
            return ("unparsed",)
    return ()


def _rules_of_text(text: str, language: str) -> tuple[str, ...]:
    if not _SUSPECT.search(text):
        return ()
    return (
        *(("host_door",) if _DOORS.search(text) else ()),
        *(("browser",) if language == "python" and _MARKUP.search(text) else ()),
        *(("dynamic_import",) if language == "python" and "module://" in text else ()),  # a backend's, of matplotlib
        *(("metadata_address",) if _METADATA.search(text) else ()),
        *(("format_attribute",) if language == "python" and "{" in text and _FORMAT.search(text) else ()),
    )


def _some(rule: str | None) -> tuple[str, ...]:
    return () if rule is None else (rule,)


# -- for documents -------------------------------------------------------------------------------------------

MAX_EXAMPLE_CHARS = 70  # of a line in the documents; the examples of sizes are long


def rules_as_markdown() -> str:
    """Every rule with its reason, what would pass, and its examples."""
    parts = []
    for category, about in CATEGORIES.items():
        parts.append(f"### {category}: {about}\n")
        for rule in (rule for rule in RULES.values() if rule.category == category):
            hint = f" *What would pass:* {rule.hint}." if rule.hint else ""
            parts.append(f"- **`{rule.id}`** … {rule.says}. {rule.why}{hint}")
            for told, examples in (("found in", rule.fires), ("not in", rule.silent)):
                for language, codes in examples.items():
                    parts.append(f"  - {told} {language}: {', '.join(_quoted(code) for code in codes)}")
        parts.append("")
    return "\n".join(parts)


def _quoted(code: str) -> str:
    """One line of it; `⏎` is the end of a line."""
    text = code if len(code) <= MAX_EXAMPLE_CHARS else f"{code[:30]}…{code[-10:]}"
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text.replace("\n", " ⏎ "))
    return f"`` {text} ``" if "`" in text else f"`{text}`"

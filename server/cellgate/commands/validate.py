"""Judge files by a policy, without running anything of them: what a gateway would say of each as a cell."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cellgate.commands.exits import ExitStatus
from cellgate.commands.sources import read_code
from cellgate.errors import PolicyError
from cellgate.policy.facts import LANGUAGES
from cellgate.policy.files import DEFAULT_POLICY, load_policy
from cellgate.policy.policies import POLICIES
from cellgate.policy.verdicts import as_compiler_output
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "judge files by a policy, without running them"
EXITS = """\
exit status:
  0  all would be allowed
  1  at least one would be denied
  2  usage: a file, a language or a policy that cannot be; one line on standard error says which and why"""
# What a name ends with, where it says the language. A notebook is no code: its cells are.
SUFFIXES = {
    ".py": "python",
    ".ipy": "python",
    ".sh": "bash",
    ".bash": "bash",
    ".js": "javascript",
    ".mjs": "javascript",
    ".ts": "typescript",
    ".rb": "ruby",
    ".go": "go",
    ".rs": "rust",
    ".java": "java",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".hpp": "cpp",
    ".r": "r",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of code, in UTF-8; - for standard input")
    parser.add_argument("--language", choices=LANGUAGES, help="(default: by each file's name, else python)")
    parser.add_argument(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="POLICY",
        help=f"{', '.join(POLICIES)}, or a TOML file (default: {DEFAULT_POLICY})",
    )
    parser.add_argument("--json", action="store_true", help="print one object instead of lines")


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate validate`. Raises UsageError and LimitError."""
    from cellgate.policy.judge import judge  # brings all readers with it, which no other command needs

    policy = load_policy(args.policy)
    told: list[dict[str, object]] = []
    for file in args.files:
        code, name = read_code(None, file), "<stdin>" if file == "-" else file
        try:
            verdict = judge(code, args.language or language_of(file), policy)
        except PolicyError as error:  # which denies
            told.append({"file": file, "allowed": False, "error": {"code": error.code, "text": error.text()}})
            output = f"{one_line(name)}: error[{error.code}]: {error.text()}\n"
        else:
            told.append({"file": file, **verdict.to_json()})
            output = as_compiler_output(verdict, code, name)
        print("" if args.json else output, end="")
    status = ExitStatus.OK if all(one["allowed"] for one in told) else ExitStatus.RAISED
    if args.json:
        print(json.dumps({"exit_status": int(status), "files": told}))
    return status


def language_of(name: str) -> str:
    return SUFFIXES.get(Path(name).suffix.lower(), "python")

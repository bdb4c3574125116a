"""The words of `cellgate` are completed by a shell, as the parser has them."""

from __future__ import annotations

import subprocess

import pytest

from cellgate.cli import COMMANDS, main, make_parser
from cellgate.commands.completion import script, words_of


def completed(*words: str) -> list[str]:
    """What bash offers where the last word ends."""
    ask = "; ".join(
        [
            f"COMP_WORDS=({' '.join(repr(word) for word in ('cellgate', *words))})",
            f"COMP_CWORD={len(words)}",
            "_cellgate",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    run = subprocess.run(
        ["bash", "--norc", "-c", script(make_parser()) + ask], capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stderr == ""
    return run.stdout.split()


def test_every_command_and_every_flag_is_among_the_words():
    known = dict(words_of(make_parser()))
    assert set(COMMANDS) <= set(known[()])
    assert {"--json", "--timeout", "-c"} <= set(known["exec",])
    assert {"--follow", "--since"} <= set(known["sessions", "logs"])


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["sess"], ["sessions"]),
        (["sessions", "inter"], ["interrupt"]),
        (["sessions", "--json", "lo"], ["logs"]),
        (["sessions", "logs", "--fo"], ["--follow"]),
        (["completion", "z"], ["zsh"]),
        (["run", "--sess"], ["--session"]),
    ],
)
def test_bash_completes(words, offered):
    assert completed(*words) == offered


def test_zsh_gets_the_same_script(capsys):
    assert main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("autoload") and "complete -o filenames -F _cellgate cellgate" in printed

"""Print a script that completes the words of `cellgate` in a shell.

source <(cellgate completion bash)      in ~/.bashrc
source <(cellgate completion zsh)       in ~/.zshrc
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cellgate.commands.exits import ExitStatus

__all__ = ["EXITS", "HELP", "add_arguments", "execute", "words_of"]

HELP = "print a script that completes words in a shell"
EXITS = """\
exit status:
  0  it was printed
  2  usage: there is none for this shell"""

_BASH = """\
_cellgate() {{
  local at="${{COMP_WORDS[*]:1:COMP_CWORD-1}}" word="${{COMP_WORDS[COMP_CWORD]}}" known=""
  local -a path=()
  for one in $at; do [[ $one == -* ]] || path+=("$one"); done
  case "${{path[0]-}} ${{path[1]-}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$known" -- "$word"))
  [[ ${{#COMPREPLY[@]}} -gt 0 || $word == -* ]] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -o filenames -F _cellgate cellgate
"""
_ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate completion`."""
    from cellgate.cli import make_parser

    print((_ZSH if args.shell == "zsh" else "") + script(make_parser()), end="")
    return ExitStatus.OK


def script(parser: argparse.ArgumentParser) -> str:
    """For bash, which zsh understands with its `bashcompinit`."""
    cases = "".join(f'    "{" ".join(path)}"*) known="{" ".join(words)}" ;;\n' for path, words in words_of(parser))
    return _BASH.format(cases=cases.rstrip("\n"))


def words_of(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """For each way to begin a call, what may follow: the longest beginnings first."""
    words: list[str] = []
    for action in parser._actions:  # argparse shows them to nobody in another way
        words += [word for word in action.option_strings if word.startswith("--") or len(action.option_strings) == 1]
        if isinstance(action, argparse._SubParsersAction):
            words += action.choices
            for name, inner in action.choices.items():
                yield from words_of(inner, (*path, name))
        elif action.choices is not None and not action.option_strings:
            words += map(str, action.choices)
    yield path, words

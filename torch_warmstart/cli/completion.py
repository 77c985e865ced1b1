"""The command `completion`: scripts for shells, made from the parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

from torch_warmstart.cli.answer import Answer
from torch_warmstart.cli.arguments import COMMANDS, Command, Parser

_PROGRAM = "torch-warmstart"
_BASH = """\
_torch_warmstart() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W {commands} -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    if [[ "$word" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _torch_warmstart {program}
"""
_ZSH = "#compdef {program}\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(options: argparse.Namespace) -> Answer:
    """Runs the command."""
    script = {"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell]()
    document = {"version": 1, "kind": "completion", "shell": options.shell, "script": script}
    return Answer(script.rstrip("\n"), document=document)


def _bash() -> str:
    names = shlex.quote(" ".join(["--help", "--version", *(each.name for each in COMMANDS)]))
    cases = "\n".join(
        f"        {each.name}) options={shlex.quote(' '.join(_options(each)))} ;;"
        for each in COMMANDS
    )
    return _BASH.format(commands=names, cases=cases, program=_PROGRAM)


def _zsh() -> str:
    return _ZSH.format(program=_PROGRAM) + _bash()


def _fish() -> str:
    lines = [f"complete -c {_PROGRAM} -n __fish_use_subcommand -l version"]
    for each in COMMANDS:
        about = shlex.quote(each.about)
        lines.append(f"complete -c {_PROGRAM} -n __fish_use_subcommand -a {each.name} -d {about}")
        inside = f"'__fish_seen_subcommand_from {each.name}'"
        lines += [
            f"complete -c {_PROGRAM} -n {inside} -l {option.removeprefix('--')}"
            for option in _options(each)
        ]
    return "\n".join(lines) + "\n"


def _options(command: Command) -> Iterator[str]:
    parser = Parser()
    command.add(parser)
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
    yield "--json"

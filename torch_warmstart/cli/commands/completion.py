"""The command `completion`: scripts for shells, made from the parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

from torch_warmstart.cli.answer import Answer
from torch_warmstart.cli.arguments import COMMANDS, GROUPS, Command, Parser
from torch_warmstart.display import VERSION

_PROGRAM = "torch-warmstart"
_BASH = """\
_torch_warmstart() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W {commands} -- "$word"))
        return
    fi
    if [ "$COMP_CWORD" -eq 2 ]; then
        case "${{COMP_WORDS[1]}}" in
{groups}
        esac
    fi
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}} " in
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
_SECOND_WORDS = {each.name.split(" ")[1] for each in COMMANDS if " " in each.name}
_ZSH = "#compdef {program}\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(options: argparse.Namespace) -> Answer:
    """Runs the command."""
    script = {"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell]()
    document = {"version": VERSION, "kind": "completion", "shell": options.shell, "script": script}
    return Answer(script.rstrip("\n"), document=document)


def _bash() -> str:
    names = shlex.quote(" ".join(["--help", "--version", *_first_words()]))
    options = {f"{each.name} ": " ".join(_options(each)) for each in COMMANDS}
    cases = "\n".join(
        f"        {shlex.quote(name)}*) options={shlex.quote(known)} ;;"
        for name, known in options.items()
    )
    groups = "\n".join(
        f"            {group}) COMPREPLY=($(compgen -W {shlex.quote(' '.join(_members(group)))} "
        '-- "$word")); return ;;'
        for group in GROUPS
    )
    return _BASH.format(commands=names, groups=groups, cases=cases, program=_PROGRAM)


def _first_words() -> list[str]:
    return [*dict.fromkeys(each.name.split(" ")[0] for each in COMMANDS)]


def _members(group: str) -> Iterator[str]:
    """The second words of the commands that begin with the same one."""
    names = (each.name.partition(" ") for each in COMMANDS)
    yield from (second for first, _, second in names if first == group)


def _zsh() -> str:
    return _ZSH.format(program=_PROGRAM) + _bash()


def _fish() -> str:
    begin = f"complete -c {_PROGRAM} -n"
    lines = [f"{begin} __fish_use_subcommand -l version"]
    lines += [
        f"{begin} __fish_use_subcommand -a {group} -d {shlex.quote(about)}"
        for group, about in GROUPS.items()
    ]
    for each in COMMANDS:
        first, _, second = each.name.partition(" ")
        inside = f"__fish_seen_subcommand_from {first}"
        named = f"{begin} __fish_use_subcommand"
        if second:
            others = f"not __fish_seen_subcommand_from {' '.join(_members(first))}"
            named = f"{begin} {shlex.quote(f'{inside}; and {others}')}"
            inside += f"; and __fish_seen_subcommand_from {second}"
        elif first in _SECOND_WORDS:
            inside += f"; and not __fish_seen_subcommand_from {' '.join(GROUPS)}"
        lines.append(f"{named} -a {second or first} -d {shlex.quote(each.about)}")
        lines += [
            f"{begin} {shlex.quote(inside)} -l {option.removeprefix('--')}"
            for option in _options(each)
        ]
    return "\n".join(lines) + "\n"


def _options(command: Command) -> Iterator[str]:
    parser = Parser()
    command.add(parser)
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
    yield "--json"

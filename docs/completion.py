"""Writes what bash and zsh complete on a command line, from the flags as they are declared."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.arguments import NAME, CommandHelp, FlagHelp, described

_FILES, _DIRECTORIES = {"FILE"}, {"DIR"}
"""Words for values that are paths."""

_BASH = r"""# bash completion for {name}. Written by `make docs`

_shortproc_exporter() {{
	local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} flag='' command='' each
	for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
		case $each in {commands}) command=$each && break ;; esac
	done
	# COMP_WORDBREAKS has =, so --flag=value is three words
	if [[ $word == = ]]; then
		flag=$before word=''
	elif [[ $before == = ]]; then
		flag=${{COMP_WORDS[COMP_CWORD - 2]}}
	elif [[ $before == --* ]]; then
		flag=$before
	fi
	case $command$flag in
{values}
	esac
	case $command in
{words}
	esac
	[[ ${{COMPREPLY[*]}} != *= ]] || compopt -o nospace
}}
complete -F _shortproc_exporter {name}
"""

_ZSH = """#compdef {name}
# zsh completion for {name}. Written by `make docs`

local command=${{words[2,CURRENT - 1][(r)({commands})]}}
case $command in
{cases}
esac
"""


def bash() -> str:
    """Return the file for /usr/share/bash-completion/completions."""
    commands = described()
    names = [each.name for each in commands if each.name]
    words = [_bash_words(each, names) for each in commands]
    return _BASH.format(name=NAME, commands="|".join(names), values="\n".join(_bash_values(commands)), words="\n".join(words))


def zsh() -> str:
    """Return the file for /usr/share/zsh/vendor-completions."""
    commands = described()
    cases = []
    for each in commands:
        first = [_quoted(f"1:command:(({' '.join(_described(other) for other in commands if other.name)}))")] if not each.name else []
        # the command itself is an argument, too
        files = [_quoted("1: :"), _quoted("*:file:_files")] if each.argument == "[FILE]" else [_quoted("1: :")] * bool(each.name)
        specs = [*first, *files, *(spec for flag in each.flags for spec in _zsh_flag(flag))]
        cases.append(f"({each.name or _quoted('')})\n\t_arguments -s \\\n\t\t" + " \\\n\t\t".join(specs) + "\n\t;;")
    names = "|".join(each.name for each in commands if each.name)
    return _ZSH.format(name=NAME, commands=names, cases="\n".join(cases))


def _bash_values(commands: list[CommandHelp]) -> Iterator[str]:
    """What completes the value of each flag. A pattern begins with the command where the values differ between commands."""
    found: dict[str, dict[str, str]] = {}
    for command in commands:
        for flag in command.flags:
            if flag.metavar:
                found.setdefault(flag.names[-1], {})[command.name] = _bash_value(flag)
    for name, by_command in found.items():
        same = len(set(by_command.values())) == 1
        for pattern, how in (
            {f"*{name}": next(iter(by_command.values()))}.items() if same else ((c + name, how) for c, how in by_command.items())
        ):
            yield f"\t{pattern}) {how} ;;"


def _bash_value(flag: FlagHelp) -> str:
    if flag.values:
        return f"mapfile -t COMPREPLY < <(compgen -W '{' '.join(flag.values)}' -- \"$word\") && return"
    if kind := "-f" if flag.metavar in _FILES else "-d" if flag.metavar in _DIRECTORIES else "":
        return f'compopt -o filenames && mapfile -t COMPREPLY < <(compgen {kind} -- "$word") && return'
    return "return"


def _bash_words(command: CommandHelp, names: list[str]) -> str:
    flags = [flag.names[-1] + "=" * (bool(flag.metavar) and not flag.is_optional) for flag in command.flags]
    words = " ".join(flags if command.name else [*names, *flags])
    files = ' && [[ $word == -* ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word")' if command.argument == "[FILE]" else ""
    pattern = command.name or "''"
    return f"\t{pattern}) mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$word\"){files} ;;"


def _zsh_flag(flag: FlagHelp) -> Iterator[str]:
    """`_arguments` of zshcompsys(1) describes the form."""
    about = flag.about.replace("\\", "\\\\").replace("[", r"\[").replace("]", r"\]")
    value = ""
    if flag.metavar:
        choices = f"({' '.join(flag.values)})" if flag.values else ""
        action = choices or ("_files" if flag.metavar in _FILES else "_files -/" if flag.metavar in _DIRECTORIES else "")
        value = f"{'::' if flag.is_optional else ':'}{flag.metavar.replace(':', chr(92) + ':')}:{action}"
    for name in flag.names:
        equals = "" if not flag.metavar else "=-" if flag.is_optional else "="
        repeated = "*" * ("may be repeated" in flag.about)
        yield _quoted(f"{repeated}{name}{equals}[{about}]{value}")


def _described(command: CommandHelp) -> str:
    return f'{command.name}\\:"{command.summary.replace(chr(39), "")}"'


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"

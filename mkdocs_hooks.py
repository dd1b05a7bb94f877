"""Generates the command-line page of the docs from the commands, and keeps figures in one piece."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import typer

MARKER = "<!-- every command -->"
_FIGURE = re.compile(r"\([+−]?[\d.]+(?: to |–)[+−]?[\d.]+\)|\bp [=<] [\d.]+|\d %")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the marker with the documentation of all commands; figures do not break lines."""
    code_and_text = re.split(r"(```.*?```|`[^`\n]+`)", markdown, flags=re.DOTALL)
    code_and_text[::2] = [_FIGURE.sub(_in_one_piece, text) for text in code_and_text[::2]]
    return "".join(code_and_text).replace(MARKER, commands() if MARKER in markdown else MARKER)


def _in_one_piece(figure: re.Match[str]) -> str:
    return (
        figure.group()
        .replace(" ", "\N{NO-BREAK SPACE}")
        .replace("–", "\N{WORD JOINER}–\N{WORD JOINER}")
    )


def commands() -> str:
    """Markdown with a section per command: arguments, options and an example."""
    from pairmatch.cli import app

    group: Any = typer.main.get_command(app)
    return "\n".join(
        line for name, command in group.commands.items() for line in _section(name, command)
    )


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    options = [part for part in command.params if part.param_type_name == "option"]
    required = [
        f"{option.opts[0]} {option.metavar or option.name.upper()}"
        for option in options
        if option.required
    ]
    usage = [
        "pairmatch",
        name,
        *(argument.metavar or argument.name.upper() for argument in arguments),
        *required,
    ]
    usage += ["[OPTIONS]"] if len(options) > len(required) else []
    yield from (f"## `pairmatch {name}`", "", command.help, "")
    yield from ("```text", " ".join(usage), "```", "")
    if command.params:
        yield from ("| option | meaning |", "| --- | --- |")
    for part in arguments:
        yield f"| `{part.metavar or part.name.upper()}` | {_text(part.help)} |"
    for part in options:
        names = ", ".join(f"`{name}`" for name in [*part.opts, *part.secondary_opts])
        value = f" `{part.metavar}`" if part.metavar else ""
        meaning = [_text(part.help), _repeated(part), _default(part)]
        yield f"| {names}{value} | {' '.join(filter(None, meaning))} |"
    if command.epilog:
        yield from ("", "```text", command.epilog.removeprefix("Example: "), "```")
    yield ""


def _repeated(option: Any) -> str:
    return "Repeatable." if option.multiple and "repeat" not in option.help else ""


def _default(option: Any) -> str:
    if option.required:
        return "**Required.**"
    if isinstance(option.show_default, str):
        return f"Default: {_text(option.show_default)}."
    if option.is_flag:
        chosen = option.opts if option.default else option.secondary_opts
        return f"Default: `{chosen[0]}`." if chosen else ""
    return "" if option.default in (None, "", ()) else f"Default: `{option.default}`."


def _text(text: str) -> str:
    """Help text that is safe in a Markdown table."""
    return (
        html.escape(text, quote=False).replace("|", "\\|").replace("[", "\\[").replace("*", "\\*")
    )

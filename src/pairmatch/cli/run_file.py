"""Run files: the command and the options of a run as YAML, read with `--config`.

Every value is what stands on a command line, as text, so that a run file can say all that a command
line can, and means the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import has_surrogates, printable

#: Name of the run file of a saved matcher.
RUN = "run.yaml"
#: Keys that are not options: the command, and what a saved matcher records about its run.
RESERVED = ("command", "recorded")
_MOST_BYTES = 1_000_000
_TAG = "tag:yaml.org,2002:"
_TAGS = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "timestamp")}
_FLOW = 40  # characters of a list that is written on one line
# Numbers and booleans that mean the same in JSON
_PLAIN = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?|true|false")
# The password of an address, or of a connection string of libpq
_SECRET = re.compile(r"://[^/@\s]*:[^/@\s]+@|\b(?:ssl)?password\s*=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a run file.

    Attributes:
        key: Key as it is written.
        values: Values; one, unless it is written as a list.
        is_list: Whether it is written as a list.
        line: Number of the line, from 1.
    """

    key: str
    values: tuple[str, ...]
    is_list: bool
    line: int


@dataclass(slots=True)
class RunFile:
    """A run file that was read.

    Attributes:
        path: Path to the file.
        entries: All entries but those of `RESERVED`.
        command: Words of the command, such as `gallery build`; None if they are missing.
        recorded: What a saved matcher records about its run, as text; None if there is none.
        problems: What is wrong with the file so far.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    command: str | None = None
    recorded: Mapping[str, Any] | None = None
    problems: list[str] = field(default_factory=list)

    def fail(self) -> None:
        """Raises DataError with all problems in the order of lines, if there are any."""
        if self.problems:
            problems = sorted(self.problems, key=_line_of)
            raise DataError(f"{printable(str(self.path))} cannot be used:", problems)


def holds_secret(text: str) -> bool:
    """Whether the text of an option holds a password."""
    return _SECRET.search(text) is not None


def _line_of(problem: str) -> float:
    line = re.match(r"line (\d+): ", problem)
    return int(line[1]) if line else math.inf


def read_run_file(path: Path) -> RunFile:
    """Reads a run file; nothing of it is executed.

    Raises:
        DataError: The file is not YAML, or not a mapping of keys to values.
        OSError: The file cannot be read.
    """
    import yaml

    from pairmatch.io.files import expand_user, read_file

    file = RunFile(path)
    content = read_file(expand_user(path), most_bytes=_MOST_BYTES)
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        file.problems.append(" ".join(str(error).replace("<byte string>", "the file").split()))
    except RecursionError:
        file.problems.append("it is nested too deeply")
    else:
        if isinstance(root, yaml.MappingNode):
            _read_mapping(file, root)
        else:
            file.problems.append("it holds no lines `option: value`, such as `command: fit`")
            file.fail()
    if file.problems and not file.entries:
        file.fail()
    if file.command is None:
        file.problems.append("command is missing: add a line such as `command: fit`")
    return file


def _read_mapping(file: RunFile, root: Any) -> None:
    lines: dict[str, int] = {}
    for key_node, node in root.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node.value, str) else ""
        name = option_key(key)
        if not name:
            file.problems.append(f"line {line}: a key must be the name of an option")
        elif name in lines:
            file.problems.append(f"line {line}: {key} stands on line {lines[name]} already")
        elif name == "recorded":
            file.recorded = _plain(node, depth=3)
        else:
            values = _values(node)
            if isinstance(values, str):
                file.problems.append(f"line {line}: {key} {values}")
            elif name == "command":
                file.command = " ".join(" ".join(values).split())
            else:
                file.entries.append(Entry(key, values, isinstance(node.value, list), line))
        lines.setdefault(name, line)


def _values(node: Any) -> tuple[str, ...] | str:
    """Texts of a value or list of values; or what is wrong, as the end of a sentence."""
    nodes = node.value if node.tag == f"{_TAG}seq" else [node]
    if any(not isinstance(item.value, str) for item in nodes):
        return "is nested: write a value, or a list of values"
    if any(item.tag == f"{_TAG}null" for item in nodes):
        return "has no value: write one, in quotes if it is empty, or leave the line out"
    foreign = [item.tag for item in nodes if item.tag not in _TAGS]
    if foreign:
        return f"has the tag {printable(foreign[0])[:100]}: write a value without one"
    return tuple(item.value for item in nodes)


def _plain(node: Any, depth: int) -> Any:
    """Mappings of texts, as far as they are not deeper."""
    if isinstance(node.value, str):
        return node.value
    if depth == 0 or node.tag != f"{_TAG}map":
        return None
    return {str(key.value): _plain(value, depth - 1) for key, value in node.value}


def option_key(name: str) -> str:
    """The form in which names of options are compared: `--most_skipped` is `most-skipped`."""
    return name.strip().lstrip("-").replace("_", "-").lower()


def write_run(
    command: str,
    options: Mapping[str, str | Sequence[str]],
    recorded: Mapping[str, Any] | None = None,
) -> str:
    """A run file as text.

    Args:
        command: Words of the command.
        options: Text, or texts, by key.
        recorded: What to record about the run: texts, numbers, and mappings of them.

    Raises:
        ConfigurationError: A value holds a password, or is not valid Unicode.
    """
    import yaml

    for key, value in options.items():
        texts = [value] if isinstance(value, str) else value
        if any(map(holds_secret, texts)):
            raise ConfigurationError(
                f"--{key} holds a password, which a run file must not keep: leave it out, and give "
                "it to the program that needs it in another way, such as ~/.pgpass."
            )
        if any(map(has_surrogates, texts)):
            raise ConfigurationError(f"--{key} is not valid Unicode, as a run file must be.")
    content = {"command": command, **options}
    if recorded is not None:
        content["recorded"] = recorded  # type: ignore[assignment]
    return str(yaml.serialize(_node(content), Dumper=yaml.SafeDumper, allow_unicode=True))


def _node(value: Any) -> Any:
    """A YAML node; text that looks like a number is written as one, since it is read as text."""
    import yaml

    if isinstance(value, Mapping):
        return yaml.MappingNode(
            f"{_TAG}map",
            [(_node(key), _node(item)) for key, item in value.items()],
            flow_style=False,
        )
    if isinstance(value, list | tuple):
        is_short = sum(len(str(item)) + 2 for item in value) < _FLOW
        return yaml.SequenceNode(f"{_TAG}seq", [_node(item) for item in value], flow_style=is_short)
    text = str(value)
    tag = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))
    is_plain = tag != f"{_TAG}str" and _PLAIN.fullmatch(text)
    return yaml.ScalarNode(tag if is_plain else f"{_TAG}str", text)

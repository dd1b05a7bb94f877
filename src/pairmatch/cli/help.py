"""How commands print their help: whole option names, grouped by subject, within 80 columns."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from pairmatch.cli.run_options import config_option, with_run_file

#: Options by subject, in the order of the help; all others stand under "Options".
SUBJECTS = {
    "Tables and photos": (
        "images",
        "profiles",
        "sides",
        "columns",
        "text_columns",
        "keep_words",
        "on_bad_row",
        "most_skipped",
        "skipped",
        "follow_links",
        "pools",
    ),
    "Query person": ("query", "text", "attribute", "person_id"),
    "Parts of the matcher": (
        "preset",
        "backbone",
        "pooler",
        "prompt",
        "prompt_attribute",
        "head",
        "loss",
        "learner",
        "reranker",
        "baseline",
        "settings",
    ),
    "Splits and tests": (
        "split_by",
        "before",
        "test",
        "seen",
        "known",
        "target",
        "learning_curve",
        "holdout",
        "folds",
        "repeats",
        "join_identical",
        "seed",
    ),
    "Fine-tuning": (
        "epochs",
        "batch_size",
        "micro_batch",
        "learning_rate",
        "rank",
        "checkpoints",
    ),
    "Who may be shown": ("where", "mutual", "exclude", "symmetric"),
    "Explorer": (
        "explore",
        "photos_from",
        "test_pairs",
        "second",
        "second_gallery",
        "demo",
    ),
    "Metadata and uploads": (
        "metadata",
        "yes",
        "max_usd",
        "batch",
        "dry_run",
        "retry_refused",
        "corrections",
        "import_file",
        "export_file",
    ),
    "Limits": ("max_body_mb", "body_seconds", "max_photos", "max_megapixels", "decode_seconds"),
    "Price before the start": ("plan_only", "gpus", "accelerator", "usd_per_hour"),
    "Output": (
        "output",
        "json_file",
        "as_json",
        "tables",
        "figures",
        "history",
        "track",
        "photos",
        "note",
        "quiet",
    ),
    "Machine": ("device", "engine", "store"),
    "This command": ("config", "help"),
}
_SUBJECT_OF = {name: subject for subject, names in SUBJECTS.items() for name in names}
_VALUE = re.compile(r"<(?:list\[)?([^<>\]]+?)(?: range)?\]?>")  # of an option, as typer names it
_NAMES = {"str": "TEXT", "path": "PATH", "int": "N", "float": "NUMBER"}
_WORDS = re.compile(r"default: \((.+)\)(?=[;\]])")  # a default in words
_WIDEST_NAME = 22  # a wider name has its description on the next line


class Command(TyperCommand):
    """A command whose help has its options grouped by subject, and an example that can be run.

    It takes a run file with `--config`, unless `has_run_file` is false.
    """

    has_run_file = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.has_run_file:
            self.params = [*self.params, config_option()]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line, with the options of its run file."""
        if self.has_run_file:
            args = with_run_file(self, ctx, args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, then options by subject."""
        groups: dict[str, list[tuple[str, str]]] = {
            name: [] for name in ("Arguments", "Options", *SUBJECTS)
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            record = _VALUE.sub(_placeholder, name), _WORDS.sub(r"default: \1", text)
            subject = _SUBJECT_OF.get(param.name or "", "Options")
            groups["Arguments" if param.param_type_name == "argument" else subject].append(record)
        for name, rows in groups.items():
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows, col_max=_WIDEST_NAME)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Required arguments as they are typed, without braces, and required options."""
        pieces = super().collect_usage_pieces(ctx)
        pieces = [piece.replace("{", "").replace("}", "") for piece in pieces]
        for param in self.params:
            if param.required and isinstance(param, TyperOption):
                value = _VALUE.sub(_placeholder, param.display_type_rich(ctx) or "")
                pieces.append(f"{param.opts[0]} {value}")
        return pieces

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the example."""
        write_example(self.epilog, formatter)


class CommandGroup(TyperGroup):
    """A group of commands whose help has whole sentences, and ends with an example."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes every command with the first sentence of its help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, (command.help or "").partition("\n\n")[0].replace("\n", " "))
                    for name, command in commands
                    if command is not None and not command.hidden
                ]
            )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the example."""
        write_example(self.epilog, formatter)


class Application(typer.Typer):
    """Registers commands that print their help as `Command` does."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("cls", CommandGroup)
        super().__init__(
            rich_markup_mode=None,
            no_args_is_help=True,
            add_completion=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **options,
        )

    def command(self, *args: Any, **options: Any) -> Any:
        """Decorator that registers a command."""
        return super().command(*args, **{"cls": Command, **options})


def write_example(epilog: str | None, formatter: Any) -> None:
    """Writes an example that can be copied: a backslash stands where a line of it ends."""
    if epilog:
        with formatter.section("Example"):
            for line in wrapped_command(epilog.removeprefix("Example: "), formatter.width - 2):
                formatter.write(f"  {line}\n")


def wrapped_command(command: str, width: int) -> list[str]:
    """Lines of a shell command; each but the last ends with a backslash.

    Args:
        command: The command, as one line.
        width: Maximum number of characters of a line.
    """
    lines: list[str] = []
    for word in map(_quoted, shlex.split(command)):
        if lines and len(lines[-1]) + 1 + len(word) <= width - 2:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}" if lines else word)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _placeholder(value: re.Match[str]) -> str:
    """What stands for a value: `<list[path]>` becomes PATH, `<stop|skip>` becomes stop|skip."""
    return _NAMES.get(value[1].lower(), value[1])


def _quoted(word: str) -> str:
    quoted = shlex.quote(word)
    return f'"{word}"' if quoted != word and not set(word) & set('"$`\\!') else quoted

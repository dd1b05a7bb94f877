"""Results as a table for print: CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import how_often, printable
from pairmatch.evaluation.comparison import Comparison
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.evaluation.intervals import Metrics
from pairmatch.evaluation.pool_notes import candidates_in_words
from pairmatch.io.replacing import replace_file
from pairmatch.io.spreadsheets import csv_bytes

#: Extensions of the files that `SummaryTable.save` writes.
FORMATS = (".csv", ".md", ".tex")
_NOT_COMPARED = ("chance", "a → b", "b → a")  # rows that are never bold
_LEVELS = (0.05, 0.01, 0.001)
_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "→": r"$\to$",
    "†": r"$\dagger$",
    "∞": r"$\infty$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "…": r"\dots{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "\N{NO-BREAK SPACE}": "~",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
}
# What pdfLaTeX cannot set without further packages, while LuaLaTeX and XeLaTeX can
_OTHER_LETTERS = re.compile(
    "[^\u0000-\u017fȘșȚț\u2010\u2018\u2019\u201c\u201d‡•€™]|[«»ÐÞðþĄąĐđĘęĦħĮįĿŀŉŊŋŦŧŲųſ]"
)
_LETTER = (
    r"% Of letters that pdfLaTeX lacks, it writes the number; LuaLaTeX and XeLaTeX have them."
    "\n"
    r"\providecommand{\anyletter}[2]{\ifdefined\Umathchar#1\else[#2]\fi}"
)
_LONG_NAME = 28  # characters of a name that gets a column with line breaks
_LONG_TABLE = 16  # rows of a table that may need more than a page


@dataclass(frozen=True, slots=True)
class SummaryTable:
    """Metrics of learners with intervals, the best in bold, and marks of significance.

    Attributes:
        rows: Name and metrics of each row; chance first.
        tests: By name, the test of a row's MRR against the reference, corrected for their number.
        reference: Name of the row that the others are tested against; None without tests.
        notes: What the figures are of; each is a sentence.
        run: What produced them: versions, seed, data and command; blank if it is not known.
        confidence: Confidence level of the intervals.
    """

    rows: tuple[tuple[str, Metrics], ...]
    tests: Mapping[str, Comparison]
    reference: str | None
    notes: tuple[str, ...]
    run: str = ""
    confidence: float = 0.95

    @classmethod
    def of(
        cls,
        result: CrossValidation | Evaluation,
        *,
        reference: str | None = None,
        run: str = "",
    ) -> SummaryTable:
        """The table of a cross-validation, a sweep or an evaluation.

        Args:
            result: Its figures.
            reference: Row that the others are tested against; by default the best simple baseline
                of a cross-validation, and the frozen features of an evaluation.
            run: What produced the figures, as a sentence.

        Raises:
            ConfigurationError: There is no such row.
        """
        if isinstance(result, Evaluation):
            return _of_evaluation(result, run)
        names = ("chance", *result.learners)
        rows = tuple((name, result.metrics(name)) for name in names)
        if reference is None:
            reference = next(iter(reversed(result.references())), None)
        elif reference not in result.learners:
            result.table(reference)  # an error that names the learners
        tests = {} if reference is None else {t.name: t for t in result.comparisons(reference)}
        times = how_often(len(result.chance) / result.queries)
        notes = (
            f"{result.queries} queries, each tested {times} among "
            f"{candidates_in_words(result.chance)}.",
            *result.notes,
        )
        return cls(rows, tests, reference, notes, run, result.confidence)

    @property
    def metrics(self) -> list[str]:
        """Names of the columns: `R@K`, and `MRR`."""
        return [*(f"R@{k}" for k in self.rows[0][1].recall), "MRR"]

    def save(self, path: str | Path) -> Path:
        """Writes the table as .csv, .md or .tex, by the file's extension.

        Raises:
            ConfigurationError: The extension is unknown.
        """
        target = Path(path)
        check_table_file(target)
        content = {".csv": self.csv, ".md": self.markdown, ".tex": self.latex}[target.suffix]()
        replace_file(target, content)
        return target

    def csv(self) -> bytes:
        """One row per learner: each metric as a fraction with its bounds, and the test of its MRR.

        Queries, confidence level and run are columns, so that no row loses them.
        """
        rows = []
        for name, metrics in self.rows:
            row: dict[str, Any] = {"learner": name}
            for metric in self.metrics:
                value, interval = metrics.value(metric)
                low, high = interval or (None, None)
                row |= {metric: value, f"{metric} low": low, f"{metric} high": high}
            test = self.tests.get(name)
            row |= {
                "reference": self.reference,
                "difference": test and test.difference,
                "p": test and test.p_value,
                "corrected for": test and test.corrected_for,
                "confidence": self.confidence,
                "about": " ".join(self.notes),
                "run": self.run,
            }
            rows.append(row)
        return csv_bytes(list(rows[0]), rows)

    def markdown(self) -> bytes:
        """A table in GitHub's Markdown, and its notes below."""
        lines = [f"| | {' | '.join(self.metrics)} |", f"| --- |{' ---: |' * len(self.metrics)}"]
        for name, metrics in self.rows:
            cells = [_markdown(name)]
            for metric in self.metrics:
                text, bounds, is_best = self._cell(metrics, metric)
                shown = f"**{text}**" if is_best else text
                mark = self._mark(name) if metric == "MRR" else ""
                cells.append(f"{shown}{_markdown(mark)}{f' ({bounds})' if bounds else ''}")
            lines.append(f"| {' | '.join(cells)} |")
        notes = "\n".join(_markdown(note) for note in self._all_notes())
        return ("\n".join(lines) + f"\n\n{notes}\n").encode()

    def latex(self) -> bytes:
        """A table with booktabs, each interval below its value, and the notes below the table."""
        width = len(self.metrics)
        notes = self._all_notes()
        body = []
        for name, metrics in self.rows:
            cells = [self._cell(metrics, metric) for metric in self.metrics]
            texts = [rf"\textbf{{{text}}}" if is_best else text for text, _, is_best in cells]
            mark = _latex(self._mark(name))
            # As wide as nothing, so that the digits stand below each other
            texts[-1] += rf"\rlap{{\textsuperscript{{{mark}}}}}" if mark else ""
            body.append(" & ".join([_first_cell(name), *texts]) + r" \\")
            if any(bounds for _, bounds, _ in cells):
                bounds = [rf"{{\scriptsize ({_latex(bounds)})}}" for _, bounds, _ in cells]
                body.append(" & ".join(["", *bounds]) + r" \\ \addlinespace[2pt]")
        is_long = any(len(name) > _LONG_NAME for name, _ in self.rows)
        names = r"p{.3\linewidth}" if is_long else "l"
        header = " & ".join(["", *(_latex(metric) for metric in self.metrics)])
        frame = _long_table if len(self.rows) > _LONG_TABLE else _float
        lines = frame(f"{names}{'r' * width}", rf"{header} \\", body, list(map(_latex, notes)))
        if any(r"\anyletter" in line for line in lines):
            lines.insert(1, _LETTER)
        return ("\n".join(lines) + "\n").encode()

    def _cell(self, metrics: Metrics, metric: str) -> tuple[str, str, bool]:
        """A metric as text, its interval, and whether no learner has a higher one."""
        value, interval = metrics.value(metric)
        bounds = "–".join(_figure(bound, metric) for bound in interval) if interval else ""
        compared = [row for name, row in self.rows if name not in _NOT_COMPARED]
        highest = max((row.value(metric)[0] for row in compared), default=value)
        is_best = any(row is metrics for row in compared) and value == highest
        return _figure(value, metric), bounds, is_best

    def _mark(self, name: str) -> str:
        """`*` for better than the reference, `†` for worse; one for each level of significance."""
        test = self.tests.get(name)
        if test is None:
            return ""
        return ("*" if test.difference > 0 else "†") * sum(test.p_value < p for p in _LEVELS)

    def _all_notes(self) -> list[str]:
        intervals = [
            f"Recall in percent; in parentheses {100 * self.confidence:g} % intervals; bold: the "
            "highest, chance aside."
        ]
        marks = []
        if self.tests:
            count = next(iter(self.tests.values())).corrected_for
            correction = f", corrected for {count} tests by Holm's method" if count > 1 else ""
            levels = ", ".join(f"{'*' * n} p < {p}" for n, p in enumerate(_LEVELS, 1))
            marks = [
                f"MRR better than that of {self.reference} at {levels}; worse: †, ††, ††† (paired "
                f"tests over people{correction})."
            ]
        return [*self.notes, *intervals, *marks, *([self.run] if self.run else [])]


def check_table_file(path: Path) -> None:
    """Checks the extension of a table's file.

    Raises:
        ConfigurationError: It is not one of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ConfigurationError(
            f"A table is written as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {path.name!r}."
        )


def _of_evaluation(evaluation: Evaluation, run: str) -> SummaryTable:
    rows = tuple((name.strip(), metrics) for name, metrics in evaluation.rows())
    tests = {}
    if evaluation.frozen is not None and evaluation.chance_table.independent > 1:
        tests["trained"] = evaluation.compare(evaluation.frozen, name="trained", baseline="frozen")
    notes = (
        f"{evaluation.queries} queries, each among "
        f"{candidates_in_words(evaluation.table, evaluation.candidates)}.",
        *evaluation.notes,
    )
    reference = "frozen" if tests else None
    return SummaryTable(rows, tests, reference, notes, run, evaluation.confidence)


_CAPTION = r"\caption{Recall@K in percent, and mean reciprocal rank (MRR).}\label{tab:pairmatch}"


def _float(columns: str, header: str, body: list[str], notes: list[str]) -> list[str]:
    """Lines of a table on one page."""
    return [
        r"% Needs \usepackage{booktabs}. In a page of two columns, write table* for table.",
        r"\begin{table}",
        r"  \centering\small\setlength{\tabcolsep}{4pt}",
        rf"  {_CAPTION}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {header}",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        "",
        r"  \medskip",
        r"  \begin{minipage}{\linewidth}\footnotesize",
        *(f"    {note}" for note in notes),
        r"  \end{minipage}",
        r"\end{table}",
    ]


def _long_table(columns: str, header: str, body: list[str], notes: list[str]) -> list[str]:
    """Lines of a table of several pages, each with the header."""
    return [
        r"% Needs \usepackage{booktabs} and \usepackage{longtable}, in a page of one column.",
        r"{\small\setlength{\tabcolsep}{4pt}",
        rf"\begin{{longtable}}{{{columns}}}",
        rf"  {_CAPTION}\\",
        rf"  \toprule {header} \midrule \endhead",
        r"  \bottomrule \endfoot",
        *(f"  {line}" for line in body),
        r"\end{longtable}}",
        r"\noindent{\footnotesize",
        *(f"  {note}" for note in notes),
        r"\par}",
    ]


def _figure(value: float, metric: str) -> str:
    return f"{value:.3f}" if metric == "MRR" else f"{100 * value:.1f}"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", printable(text))


def _latex(text: str) -> str:
    return "".join(map(_latex_letter, unicodedata.normalize("NFC", printable(text))))


def _latex_letter(letter: str) -> str:
    known = _SIGNS.get(letter)
    if known is None and _OTHER_LETTERS.match(letter):
        return rf"\anyletter{{{letter}}}{{U+{ord(letter):04X}}}"
    return letter if known is None else known


def _first_cell(name: str) -> str:
    """A name at the start of a row: a bracket or star would be an argument of the row before."""
    text = _latex(name)
    return f"{{{text[0]}}}{text[1:]}" if text.startswith(("[", "*")) else text

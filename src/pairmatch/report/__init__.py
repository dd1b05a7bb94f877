"""The report of a fit: a self-contained HTML page, and its figures as JSON."""

from pairmatch.report.content import (
    Candidate,
    Query,
    Report,
    Row,
    Section,
    Table,
    matcher_report,
)
from pairmatch.report.curves import evaluation_curves
from pairmatch.report.diagnosis import Diagnosis, diagnose
from pairmatch.report.history import append_figures
from pairmatch.report.learners import LearnerComparison, compare_learners, serve_best
from pairmatch.report.page import summary, write_json, write_report
from pairmatch.report.sections import paper_sections, write_sweep_report
from pairmatch.report.seen import seen_sections
from pairmatch.report.summary_table import SummaryTable
from pairmatch.report.tuning import tuning_section

__all__ = [
    "Candidate",
    "Diagnosis",
    "LearnerComparison",
    "Query",
    "Report",
    "Row",
    "Section",
    "SummaryTable",
    "Table",
    "append_figures",
    "compare_learners",
    "diagnose",
    "evaluation_curves",
    "matcher_report",
    "paper_sections",
    "seen_sections",
    "serve_best",
    "summary",
    "tuning_section",
    "write_json",
    "write_report",
    "write_sweep_report",
]

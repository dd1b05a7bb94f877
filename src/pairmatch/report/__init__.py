"""The report of a fit: one self-contained HTML page, and the same figures as JSON."""

from pairmatch.report.content import Candidate, Query, Report, evaluation_curves, matcher_report
from pairmatch.report.page import summary, write_json, write_report

__all__ = [
    "Candidate",
    "Query",
    "Report",
    "evaluation_curves",
    "matcher_report",
    "summary",
    "write_json",
    "write_report",
]

"""Eligibility rules: one SQL expression over attributes, parsed by sqlglot, never run as code."""

from pairmatch.rules.columns import Column, Columns, Kind, Mask, kind_of, person_columns
from pairmatch.rules.rule import Rule, parse_rule

__all__ = ["Column", "Columns", "Kind", "Mask", "Rule", "kind_of", "parse_rule", "person_columns"]

"""Votes as CSV, in and out, and studies that were imported."""

from evalkit.study.forms.files import as_csv, read_csv, read_votes, write_csv

__all__ = ["as_csv", "read_csv", "read_votes", "write_csv"]

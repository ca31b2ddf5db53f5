"""Temporal flickering needs no weights: the official metric, in both profiles."""

from evalkit.metrics.temporal_flickering import METRIC as METRIC

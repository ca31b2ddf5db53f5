"""How videos are judged: decode once, score, aggregate with intervals, report."""

__version__ = "0.1.0"

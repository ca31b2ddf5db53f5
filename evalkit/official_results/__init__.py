"""The official package's result files: runs written as it writes them, and its files read back as runs.

`<name>_eval_results.json` maps a dimension to `[score, [{"video_path", "video_results", ...}, ...]]`, and
`<name>_full_info.json` lists the prompts with their videos. The leaderboard takes a zip of the two.
Source: the official `vbench/__init__.py`, the `compute_*` functions of its dimensions, `scripts/cal_final_score.py`,
and `README.md`, section "Submit to Leaderboard".
"""

from evalkit.official_results.export import Export, export_run, full_info, write_export
from evalkit.official_results.imports import import_results
from evalkit.official_results.parse import EVAL_RESULTS, FULL_INFO, read_results
from evalkit.official_results.submission import write_submission

__all__ = [
    "EVAL_RESULTS",
    "FULL_INFO",
    "Export",
    "export_run",
    "full_info",
    "import_results",
    "read_results",
    "write_export",
    "write_submission",
]

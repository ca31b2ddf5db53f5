"""What the numbers came from, as the run recorded it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from markupsafe import Markup

from evalkit.report import Page, Section, ShownRun, moment


def _git(commit: dict[str, Any] | None) -> str:
    if commit is None:
        return "installed package, no checkout"
    return f"{commit['commit']}{', with uncommitted changes' if commit['dirty'] else ''}"


def _hardware(found: dict[str, Any]) -> str:
    parts = [found["cpu"], f"{found['cores']} cores"]
    if found["memory_gib"] is not None:
        parts.append(f"{found['memory_gib']} GiB memory")
    return ", ".join([*parts, found["gpu"] or "no GPU"])


def facts(run: ShownRun) -> dict[str, str]:
    """Name and value of everything needed to repeat the run, in words."""
    manifest, subset = run.manifest, run.summary["subset"]
    return {
        "Run": run.name,
        "Command": shlex.join(map(str, manifest["command"])) or "called from Python",
        "Finished": moment(manifest["finished"]),
        "Videos": str(manifest["videos_dir"]),
        "Prompt suite": f"{subset['name']}, {subset['n_prompts']:,} prompts, {subset['source']}",
        "Suite sha256": subset["sha256"],
        "Profile": f"{run.summary['profile']}, {run.summary['precision']}",
        "Seed": str(manifest["seed"]),
        "Config sha256": manifest["config_sha256"],
        "Code": _git(manifest["git"]),
        "Hardware": _hardware(manifest["hardware"]),
    }


def body(page: Page) -> Markup:
    """A row for each fact and a column for each run, then weights, packages and the full configuration."""
    tables = [("Weights, sha256", "weights"), ("Packages", "packages")]
    configs = [json.dumps(run.manifest["config"], indent=2, ensure_ascii=False) for run in page.runs]
    return page.fill("provenance.html", columns=[facts(run) for run in page.runs], tables=tables, configs=configs)


SECTION = Section("Provenance", 80, body)

"""What the numbers came from, as the run recorded it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from markupsafe import Markup

from evalkit.report import Page, Section, ShownCost, ShownRun, moment


def _git(commit: dict[str, Any] | None) -> str:
    if commit is None:
        return "installed package, no checkout"
    return f"{commit['commit']}{', with uncommitted changes' if commit['dirty'] else ''}"


def _hardware(found: dict[str, Any]) -> str:
    parts = [found["cpu"], f"{found['cores']} cores"]
    if found["memory_gib"] is not None:
        parts.append(f"{found['memory_gib']} GiB memory")
    return ", ".join([*parts, found["gpu"] or "no GPU"])


def _imported(manifest: dict[str, Any]) -> dict[str, str]:
    """What is said of an imported run in place of what nobody recorded."""
    origin = manifest["imported"]
    files = "; ".join(f"{file['file']} (sha256 {file['sha256']})" for file in origin["files"])
    return {
        "Imported": f"{origin['name']}, from results of VBench's own package: {files}",
        "Finished": f"imported {moment(manifest['finished'])}; when it was scored is not recorded",
        "Profile": "official, as the package computed it; precision not recorded",
        "Code": f"not recorded; imported by {origin['by']}",
        "Hardware": "not recorded",
    }


def facts(run: ShownRun) -> dict[str, str]:
    """Name and value of everything needed to repeat the run, in words."""
    manifest, subset = run.manifest, run.summary["subset"]
    said = {
        "Run": run.name,
        "Command": shlex.join(map(str, manifest["command"])) or "called from Python",
        "Finished": moment(manifest["finished"]),
        "Videos": str(manifest["videos_dir"]),
        "Prompt suite": f"{subset['name']}, {subset['n_prompts']:,} prompts, {subset['source']}",
        "Suite sha256": subset["sha256"],
        "Profile": f"{run.summary['profile']}, {run.summary['precision']}",
        "Seed": str(manifest["seed"]),
        "Config sha256": manifest["config_sha256"],
    }
    if run.imported:
        return said | _imported(manifest)
    return said | {"Code": _git(manifest["git"]), "Hardware": _hardware(manifest["hardware"])}


def cost_files(cost: ShownCost) -> list[tuple[ShownCost, str, dict[str, Any]]]:
    """The cost files of a directory, and what each says of its origin."""
    found = {"flops.json": cost.record.flops, "latency.json": cost.record.latency}
    return [(cost, name, record.provenance) for name, record in found.items() if record is not None]


def cost_facts(cost: ShownCost, file: str, origin: dict[str, Any]) -> dict[str, str]:
    """Name and value of what a cost file says of its origin, in words; a dash where it says nothing."""
    command, finished, hardware = (origin.get(name) for name in ("command", "finished", "hardware"))
    return {
        "File": f"{cost.name}/{file}",
        "Command": shlex.join(map(str, command)) if command else "–",
        "Finished": moment(finished) if finished else "–",
        "Code": _git(origin["git"]) if "git" in origin else "–",
        "Hardware": _hardware(hardware) if hardware else "–",
    }


def body(page: Page) -> Markup:
    """A row for each fact and a column for each run, then weights, packages and the full configuration."""
    tables = [("Weights, sha256", "weights"), ("Packages", "packages")]
    configs = [json.dumps(run.manifest["config"], indent=2, ensure_ascii=False) for run in page.runs]
    files = [file for cost in page.costs for file in cost_files(cost)]
    columns = [facts(run) for run in page.runs]
    if any(run.imported for run in page.runs):
        columns = [{"Run": "", "Imported": "no", **column} for column in columns]
    return page.fill(
        "provenance.html",
        columns=columns,
        tables=tables,
        configs=configs,
        files=files,
        cost_columns=[cost_facts(*file) for file in files],
    )


SECTION = Section("Provenance", 80, body, reads_scores=False, of_ablation=True)

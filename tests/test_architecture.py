"""Data flows one way, and the imports prove it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer may import the layers before it, and modules of its own package.
LAYERS = (
    {"errors", "events", "resources", "types"},
    {"container_end", "files", "lock", "memory", "provenance", "run_log", "scenes", "untrusted"},
    {"encode", "figure", "records", "store", "timings", "video", "weights"},
    {"decoding", "prompts"},
    {"download", "matching", "posters"},
    {"backbones", "scoring", "stats"},
    {"crossed", "metrics", "networks"},
    {"auxiliary", "lite", "truth"},
    {"protocol", "static_filter"},
    {"job", "reference", "score_table", "workload"},
    {"ablation", "audit", "comparability", "compare", "engine", "identify"},
    {"agenda", "summary"},
    {"crew"},
    {"adjacency", "distribution", "flops", "generation", "official_results", "scoring_pass", "study", "subset_study"},
    {"flickering", "shards"},
    {"ablation_record", "cost_record", "latency"},
    {"export", "report"},
    {"demo", "doctor", "runner"},
    {"options"},
    {"ablate", "budget", "suites"},
    {"cluster"},
    {"cli"},
)
MAY_IMPORT_M4V = {"ablate", "adjacency", "flops", "generation", "latency", "runner", "workload"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Absolute names of all imported modules, function-level imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit(dotted: str) -> str | None:
    """`evalkit.metrics.base` -> `metrics`; None for other packages and the package itself."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "evalkit" and len(parts) > 1 and parts[1] != "__version__" else None


def layer(name: str) -> int:
    return next(n for n, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", modules("evalkit"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    parts = path.relative_to(ROOT / "evalkit").with_suffix("").parts
    own = parts[0]
    if own == "__init__":
        return
    for dotted in imports(path):
        other = unit(dotted)
        if other and other != own:
            assert layer(other) < layer(own), f"{path} imports {dotted}: {other} is not below {own}"
        if dotted.split(".")[0] == "m4v":
            assert own in MAY_IMPORT_M4V, f"{path} imports {dotted}"


def test_models_do_not_know_the_judges() -> None:
    for path in modules("m4v"):
        assert not any(name.split(".")[0] == "evalkit" for name in imports(path)), path


def test_one_decoder() -> None:
    writers = {"evalkit/video.py", "evalkit/encode.py", "evalkit/doctor.py"}  # the latter two encode clips
    users = {str(p.relative_to(ROOT)) for p in modules("evalkit") if any(n.split(".")[0] == "av" for n in imports(p))}
    assert users <= writers


@pytest.mark.parametrize("package", ["evalkit/metrics", "evalkit/lite", "evalkit/truth"])
def test_metrics_see_no_files(package: str) -> None:
    forbidden = {"evalkit.video", "evalkit.files", "pathlib", "os", "io", "av"}
    for path in modules(package):
        assert not imports(path) & forbidden, path


def test_the_lite_profile_and_the_help_do_not_pay_for_torch() -> None:
    script = "import sys; from evalkit.metrics import registry; from evalkit.cli import build_app; build_app();" + (
        "registry('lite'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0

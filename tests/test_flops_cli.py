"""`m4v-eval flops` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cost_record import load_cost
from tests.test_cli import cli, refused

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.out = nn.Linear(32, 8)

    def forward(self, x):
        return self.out(self.attention(x, x, x, need_weights=False)[0])

def make():
    return Net().eval(), (torch.randn(2, 10, 32),)

def no_inputs():
    return Net()

def broken():
    raise RuntimeError("no such checkpoint")

def reads():
    class Reads(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x
    return Reads(), torch.randn(3)
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    return path


def test_the_published_table(tmp_path: Path) -> None:
    done = cli(
        "flops", "--frames", "241", "--compare", "--dual-mamba-cost", "2", "--no-clip", "--json", tmp_path / "a.json"
    )
    assert done.returncode == 0, done.stderr
    assert "not reproduced" not in done.stdout
    assert "an assumption" in done.stdout
    assert "mamba+temporal saves 46.8% of what attention's mixers cost (paper: 46.8%)" in done.stdout
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["schema"] == "m4v-eval/flops/1"
    assert record["convention"]["dual_mamba_cost"] == 2
    rows = {(row["variant"], row["dual_blocks"]): row for row in record["rows"]}
    for key, published in {
        ("attention", 8): 55.44,
        ("mamba", 8): 26.64,
        ("mamba+temporal", 8): 29.52,
        ("mamba+temporal", 0): 22.416,
        ("mamba+temporal", 2): 24.192,
        ("mamba+temporal", 4): 25.968,
    }.items():
        row = rows[key]
        assert row["published_tflops"] == published
        assert row["mixer_tflops"] == pytest.approx(published * (1 + row["relative_error"]))
        assert abs(row["relative_error"]) <= (0.01 if key[1] == 8 else 0.025)
        assert (row["frames"], row["tokens"], row["single_blocks"]) == (241, 15360, 16)
        assert sum(row["breakdown"].values()) == pytest.approx(row["total_tflops"])


def test_without_the_assumption_table_6_is_not_reproduced(tmp_path: Path) -> None:
    done = cli("flops", "--compare", "--no-clip", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert "not reproduced" in done.stdout
    assert "--dual-mamba-cost 2" in done.stdout
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["reproduced"] for row in rows] == [True, True, True, False, False, False]


def test_a_run_directory_and_its_report(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = cli("flops", "--model", "m4v-tiny", "--sweep", "frames=9,17,33", "--plot", tmp_path / "s.svg", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "33" in done.stdout
    assert (tmp_path / "s.svg").read_text().startswith("<?xml")
    cost = load_cost(run)
    assert cost.flops is not None
    assert [row.clip_tflops is not None for row in cost.flops.rows] == [True, True, True]
    assert [row.this_model for row in cost.flops.rows] == [False, False, True]
    page = tmp_path / "page.html"
    assert cli("report", run, "--out", page).returncode == 0
    assert "mamba+temporal" in page.read_text()


def test_attention_blocks_swept(tmp_path: Path) -> None:
    done = cli(
        "flops", "--model", "m4v-tiny", "--no-clip", "--sweep", "dual_blocks=0,2,6", "--plot", tmp_path / "l.png",
        "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sweep = json.loads((tmp_path / "a.json").read_text())["sweep"]
    at = {(row["value"], row["variant"]): row["mixer_tflops"] for row in sweep["rows"]}
    # With all six layers attention, nothing is left to replace.
    assert at[6, "attention"] == at[6, "mamba"] == at[6, "mamba+temporal"]
    assert at[0, "mamba"] != at[6, "mamba"]


def test_a_users_network(factory: Path, tmp_path: Path) -> None:
    done = cli("flops", "--model", f"{factory}:make", "--breakdown", "--json", tmp_path / "a.json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "a.json").read_text())["rows"][0]
    expected = 2 * 20 * 32 * (3 * 32 + 32 + 8) + 4 * 2 * 10**2 * 32
    assert row["total_tflops"] == pytest.approx(expected / 1e12, rel=1e-12)
    assert row["breakdown"]["out"] == pytest.approx(2 * 20 * 32 * 8 / 1e12)
    assert row["mixer_tflops"] is None
    assert row["tokens"] is None
    assert cli("report", tmp_path, "--out", tmp_path / "page.html").returncode == 0


def test_fvcore_beside_ours(tmp_path: Path) -> None:
    done = cli("flops", "--model", "m4v-tiny", "--no-clip", "--counter", "fvcore", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert "It has no rule for" in done.stdout
    checks = json.loads((tmp_path / "a.json").read_text())["fvcore"]
    for check in checks.values():
        assert check["linear_tflops"] == pytest.approx(check["ours_linear_tflops"], rel=1e-9)
        assert "m4v::ssd" in check["missed"] or "scaled_dot_product_attention" in check["missed"]


@pytest.mark.parametrize(
    ("model", "says"), [("lingen-4b", "eq. 1 without O(Nd)"), ("stiv-xl", "misprint of 0.843"), ("stiv-xl", "2.04")]
)
def test_other_systems(model: str, says: str) -> None:
    done = cli("flops", "--model", model, "--compare", "--no-clip")
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--frames", "240"], "say 233 or 241"),
        (["--frames", "0"], "takes 1 + 8k frames"),
        (["--height", "700"], "say 696 or 704"),
        (["--height", "776"], "need a multiple of 8"),
        (["--model", "m4w"], "Did you mean m4v"),
        (["--model", "stiv-xl", "--frames", "21"], "do not divide into patches"),
        (["--model", "pyramidflow", "--ssm", "mamba1"], "has none"),
        (["--ssm", "mamba3"], "Did you mean mamba"),
        (["--dual-blocks", "25"], "24 layers"),
        (["--mask", "full"], "no --mask called 'full'"),
        (["--stage", "tiny"], "no such pyramid stage"),
        (["--counter", "ptflops"], "no counter called"),
        (["--sweep", "frames=57,58"], "say 57 or 65"),
        (["--sweep", "height=1,2"], "no parameter to sweep called"),
        (["--plot", "x.svg"], "there is none"),
        (["--sweep", "frames=9,17", "--plot", "x.gif"], "no picture"),
        (["--model", "nowhere.py:make"], "nowhere.py is no file"),
    ],
)
def test_bad_input_is_one_clear_line(args: list[str], says: str) -> None:
    refused(cli("flops", "--no-clip", *args), says)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("mak", "Did you mean make"),
        ("broken", "RuntimeError: no such checkpoint"),
        ("no_inputs", "returned Net"),
        ("reads", "does not run on the meta device"),
    ],
)
def test_a_factory_that_fails(factory: Path, function: str, says: str) -> None:
    refused(cli("flops", "--model", f"{factory}:{function}"), says)


def test_a_factory_takes_no_clip(factory: Path) -> None:
    refused(cli("flops", "--model", f"{factory}:make", "--frames", "9"), "--frames belongs to named models")


def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import torch\n\n1 / 0\n")
    done = cli("flops", "--model", f"{path}:make")
    refused(done, "ZeroDivisionError")
    assert "Put line 3 right" in done.stderr

"""The benchmark of the scans: its peers against the recurrences, its figures by hand. Nothing is timed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import scan_peers, scan_speed
from m4v.scan_reference import selective_scan_reference, ssd_reference


@pytest.mark.parametrize(
    "peer", [scan_peers.reference_scan, scan_peers.unbind_scan, scan_peers.unbind_tokens_scan, scan_speed.own_scan]
)
def test_peers_compute_the_selective_scan(peer: scan_peers.Scan) -> None:
    """Float64, rtol 1e-9."""
    x, dt, A, B, C = (tensor.double() for tensor in scan_speed.scan_inputs(40))
    expected = selective_scan_reference(x, dt, A, B[:, :, None], C[:, :, None])
    torch.testing.assert_close(peer(x, dt, A, B, C), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [4, 8, 16])
def test_the_chunked_peer_computes_ssd(chunk: int) -> None:
    """Float64, rtol 1e-9."""
    inputs = [tensor.double() for tensor in scan_speed.ssd_inputs(16)]
    found = scan_peers.minimal_ssd(chunk)(*inputs)
    torch.testing.assert_close(found, ssd_reference(*inputs), rtol=1e-9, atol=1e-12)


def test_sides_that_differ_are_not_compared() -> None:
    ones = torch.ones(3)
    assert scan_speed.agree(ones, ones * (1 + 1e-5), "same") == pytest.approx(1e-5, rel=0.1)
    for other in (ones * 1.01, ones * float("nan")):
        with pytest.raises(ValueError, match="nothing to compare"):
            scan_speed.agree(ones, other, "other")


def test_ratios_are_taken_within_rounds() -> None:
    """Rounds of 2, 4 and 3 times as long: 3, whatever the rounds' own lengths; the fastest peer counts."""
    times = {"own": [1.0, 10.0, 2.0], "slow": [2.0, 40.0, 6.0], "slower": [9.0, 90.0, 18.0]}
    rows = scan_speed.against(times, "own")
    assert [(row["peer"], row["ratio"], row["ratio_range"]) for row in rows] == [
        ("slow", 3.0, [2.0, 4.0]),
        ("slower", 9.0, [9.0, 9.0]),
    ]
    assert scan_speed.part("scan-forward", {}, rows)["ratio"] == 3.0


def test_crossings_by_hand() -> None:
    """Curves t and t^2 / 100 cross at 100, on straight lines in logarithms exactly (rel 1e-12)."""
    lengths = [10, 40, 300, 1000]
    linear, quadratic = [float(n) for n in lengths], [n**2 / 100 for n in lengths]
    assert scan_speed.crossing(lengths, quadratic, linear) == pytest.approx(100, rel=1e-12)
    assert scan_speed.crossing(lengths, linear, quadratic) is None
    assert scan_speed.crossing(lengths, [2 * t for t in linear], linear) == 10


FILL = """
from functools import partial
import torch
from benchmarks.scan_speed import in_fork, rise

held = torch.ones(2**24)
print(in_fork(partial(rise, partial(torch.ones, 2**24), partial(torch.ones, 2**16))))
"""


def test_memory_is_that_of_the_pass_alone() -> None:
    """A fork that fills 64 MiB grows by that, within 8 MiB; what the parent holds does not count.

    In a process of its own, as in the benchmark: the heap of this one may have room from earlier tests.
    """
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, check=True, cwd=root)
    assert int(done.stdout) == pytest.approx(2**26, abs=2**23)


def test_every_mixer_takes_every_length() -> None:
    for tokens in (256, 512):
        text, video, context = scan_speed.sequence(tokens)
        assert text.shape[1] + video.shape[1] == tokens
        for mixer in scan_speed.mixers().values():
            mixed: tuple[Tensor, Tensor] = scan_speed.mix(mixer, text, video, context)
            assert (mixed[0].shape, mixed[1].shape) == (text.shape, video.shape)


def test_the_long_sequence_is_that_of_241_frames() -> None:
    text, video, _ = scan_speed.sequence(scan_speed.LONG)
    assert (text.shape[1], video.shape[1]) == (128, 15_360)


def test_functions_are_read_without_running_their_file(tmp_path: Any) -> None:
    file = tmp_path / "code.py"
    file.write_text("import no_such_kernel\n\ndef double(x):\n    return factor * x\n", encoding="utf-8")
    assert scan_peers.definitions(file, "double", factor=2)["double"](3) == 6
    with pytest.raises(ValueError, match="no function missing"):
        scan_peers.definitions(file, "missing")

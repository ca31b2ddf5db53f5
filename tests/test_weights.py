"""Checkpoints are opened only if they are what they claim to be, and never by running their code."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import evalkit.weights
from evalkit.errors import UserError
from evalkit.weights import LEDGER, Checkpoint, MissingWeights, WeightStore, load_strict

PLAIN = Checkpoint("net", "net_model/net.pth", "https://publisher.example/net.pth", 0, "MIT", "a publisher")


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)


def store_with(tmp_path: Path, payload: object, checkpoint: Checkpoint = PLAIN, trust: bool = False) -> WeightStore:
    path = tmp_path / checkpoint.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(payload, path)
    return WeightStore(tmp_path, trust)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d}, lambda d: {"model": d, "epoch": 3}])
def test_publishers_wrappings(tmp_path: Path, wrap: object) -> None:
    net = Tiny()
    store = store_with(tmp_path, wrap(net.state_dict()))  # type: ignore[operator]
    other = Tiny()
    load_strict(other, store.state_dict(PLAIN), PLAIN)
    assert torch.equal(other.linear.weight, net.linear.weight)
    assert not other.linear.weight.requires_grad
    assert not other.training


@pytest.mark.parametrize("zipped", [True, False])
def test_mapped_tensors_are_the_same(tmp_path: Path, zipped: bool) -> None:
    net = Tiny()
    path = tmp_path / PLAIN.file
    path.parent.mkdir()
    torch.save({"model": net.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    mapped = WeightStore(tmp_path).state_dict(PLAIN, mapped=True)
    assert mapped.keys() == net.state_dict().keys()
    assert torch.equal(mapped["linear.weight"], net.linear.weight)


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as error:
        WeightStore(tmp_path).state_dict(PLAIN)
    assert "net_model/net.pth" in error.value.what
    assert "weights pull net" in error.value.remedy
    with pytest.raises(MissingWeights, match="or do without"):
        WeightStore(tmp_path).require([PLAIN], "; or do without")


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    tensors = {"linear.weight": torch.zeros(2, 4), "head.bias": torch.zeros(1)}
    store = store_with(tmp_path, tensors)
    with pytest.raises(UserError) as error:
        load_strict(Tiny(), store.state_dict(PLAIN), PLAIN)
    assert "linear.bias is missing" in error.value.what
    assert "linear.weight is (2, 4), not (2, 3)" in error.value.what
    assert "head.bias does not belong there" in error.value.what


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 broken zip", pickle.dumps([1, 2])])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    store = store_with(tmp_path, {})
    store.path(PLAIN).write_bytes(content)
    with pytest.raises(UserError, match="is not the net checkpoint"):
        store.state_dict(PLAIN)


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (victim,)

    store = store_with(tmp_path, {"linear.weight": Bomb()})
    with pytest.raises(UserError, match="is not the net checkpoint"):
        store.state_dict(PLAIN)
    assert not victim.exists()


def test_a_published_sha256_is_enforced_unless_trusted(tmp_path: Path) -> None:
    published = replace(PLAIN, sha256="0" * 64)
    store = store_with(tmp_path, Tiny().state_dict(), published)
    with pytest.raises(UserError, match=r"not 000000000000\.\.\. as its publisher gives"):
        store.state_dict(published)
    assert "linear.bias" in WeightStore(tmp_path, trust_archives=True).state_dict(published)


def test_the_first_verified_file_is_held_to(tmp_path: Path) -> None:
    store = store_with(tmp_path, Tiny().state_dict())
    digest = hashlib.sha256(store.path(PLAIN).read_bytes()).hexdigest()
    assert store.sha256(PLAIN) == digest
    assert store.recorded(PLAIN) is None  # hashed, but nothing vouches for it yet
    store.vouch([PLAIN])
    assert store.recorded(PLAIN) == digest
    store_with(tmp_path, Tiny().state_dict())
    with pytest.raises(UserError, match="as an earlier use recorded"):
        store.sha256(PLAIN)
    store.forget(PLAIN)
    assert store.sha256(PLAIN) != digest


def test_the_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, Tiny().state_dict())
    digest = store.sha256(PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(evalkit.weights, "hash_file", lambda path: pytest.fail("it was read again"))
        assert store.sha256(PLAIN) == digest
    store.path(PLAIN).write_bytes(b"changed")
    assert store.sha256(PLAIN) == hashlib.sha256(b"changed").hexdigest()


def test_a_torchscript_archive(tmp_path: Path) -> None:
    archive = replace(PLAIN, archive=True, sha256="0" * 64)
    with warnings.catch_warnings(action="ignore"):  # the format is deprecated, but OpenAI publishes CLIP in it
        scripted = torch.jit.trace(torch.nn.Linear(3, 2), torch.zeros(1, 3))
    path = tmp_path / archive.file
    path.parent.mkdir(parents=True)
    scripted.save(str(path))
    with pytest.raises(UserError, match="as its publisher gives"):
        WeightStore(tmp_path).state_dict(archive)
    tensors = WeightStore(tmp_path, trust_archives=True).state_dict(archive)
    assert {k: tuple(v.shape) for k, v in tensors.items()} == {"weight": (2, 3), "bias": (2,)}
    with pytest.raises(UserError, match="is not the net checkpoint"):
        WeightStore(tmp_path, trust_archives=True).state_dict(replace(archive, archive=False))


def test_a_read_only_cache_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, Tiny().state_dict())

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert re.fullmatch("[0-9a-f]{64}", store.sha256(PLAIN))
    assert not (tmp_path / LEDGER).exists()

"""The loop: learning, exact resume after kills, refusals, and many processes against one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch import Tensor, nn

from m4v.checkpoint import LAST, PREVIOUS, Checkpoint, load_checkpoint, load_system
from m4v.data import Batch, ShapesWorld, make_source
from m4v.optim import Average, is_hidden_matrix, make_optimizers
from m4v.parallel import Processes
from m4v.presets import SYSTEMS, recipe
from m4v.recipe import Recipe, build_system
from m4v.train import LOG, StepRecord, TrainingFailed, TrainingInterrupted, fit_codec, train

SMALL = {
    "m4v": {"model.width": 32, "model.heads": 1, "model.layers": 3},
    "pyramidflow": {"model.width": 32, "model.heads": 1, "model.layers": 3},
    "stiv": {"model.width": 32, "model.heads": 1, "model.layers": 2},
    "lingen": {"model.width": 32, "model.heads": 1, "model.layers": 2},
}
QUICK = {
    "train.steps": 6,
    "train.batch": 4,
    "train.save_every": 2,
    "train.warmup": 2,
    "codec.shape.channels": 8,
    "model.codec.channels": 8,
    "text.width": 16,
    "model.text_width": 16,
}


def small(system: str = "m4v", **changes: Any) -> Recipe:
    options = {f"train.{name}": value for name, value in ({"optimizer": "adamw", "lr": 2e-3} | changes).items()}
    return recipe("tiny", system).changed(QUICK | SMALL[system] | options)


def world(system: str = "m4v") -> ShapesWorld:
    return ShapesWorld("easy", frames=recipe("tiny", system).model.clip[0])


def losses(out: Path) -> list[tuple[float, float, float]]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    return [(line["loss"], line["lr"], line["grad_norm"]) for line in lines]


def assert_same(first: Checkpoint, second: Checkpoint) -> None:
    """Two checkpoints, bit for bit."""
    assert first.step == second.step
    assert first.optimizer.keys() == second.optimizer.keys()
    for ours, theirs in ((first.model, second.model), (first.ema, second.ema), (first.codec, second.codec)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name, entries in first.optimizer.items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(second.optimizer[name][k])) for k, v in entries.items()
        )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_learns_and_its_checkpoint_predicts_the_same(system: str, tmp_path: Path) -> None:
    made = small(system, steps=12, lr=3e-3)
    last = train(made, world(system), tmp_path)
    found = losses(tmp_path)
    assert sum(loss for loss, _, _ in found[-3:]) < sum(loss for loss, _, _ in found[:3])
    again, system_again, codec = load_system(last, ema=False)
    assert again == made
    checkpoint = load_checkpoint(last)
    assert all(torch.equal(checkpoint.model[name], value) for name, value in system_again.state_dict().items())
    fitted = fit_codec(made, world(system)).state_dict()
    assert all(torch.equal(fitted[name], value) for name, value in codec.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
def test_a_run_stopped_by_ctrl_c_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    made = small(optimizer=optimizer, save_every=100)
    train(made, world(), tmp_path / "whole")

    def stop(record: StepRecord, steps: int) -> None:
        if record.step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match="stopped after step 3 of 6"):
        train(made, world(), tmp_path / "cut", progress=stop)
    assert load_checkpoint(tmp_path / "cut").step == 3
    train(made, world(), tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same(load_checkpoint(tmp_path / "cut"), load_checkpoint(tmp_path / "whole"))


def test_ctrl_c_is_python_s_again_after_training(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(small(steps=1), world(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


KILLED = """
    import os, signal, sys, torch
    from pathlib import Path
    from m4v.data import ShapesWorld
    from m4v.recipe import Recipe
    from m4v.train import train
    torch.set_num_threads(1)
    def kill(record, steps):
        if record.step == 3:  # after the checkpoint of step 2 and one more logged step
            os.kill(os.getpid(), signal.SIGKILL)
    recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
    train(recipe, ShapesWorld("easy"), Path(sys.argv[2]), progress=kill)
"""


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return path


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)} | extra


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    made = small()
    (tmp_path / "recipe.json").write_text(made.canonical_json())
    train(made, world(), tmp_path / "whole")
    command = [sys.executable, str(script(tmp_path, KILLED)), str(tmp_path / "recipe.json"), str(tmp_path / "cut")]
    assert subprocess.run(command, env=environment(), check=False).returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "cut").step == 2
    assert len(losses(tmp_path / "cut")) == 4, "the log runs ahead of the checkpoint"
    with (tmp_path / "cut" / LOG).open("a") as log:
        log.write('{"step": 4, "lo')  # a line that the kill cut
    train(made, world(), tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same(load_checkpoint(tmp_path / "cut"), load_checkpoint(tmp_path / "whole"))


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    made = small(steps=2)
    first = train(made, world(), tmp_path).read_bytes()
    assert train(made, world(), tmp_path).read_bytes() == first


def test_the_one_before_is_kept_and_found(tmp_path: Path) -> None:
    train(small(steps=4), world(), tmp_path)
    assert load_checkpoint(tmp_path / PREVIOUS).step == 2
    (tmp_path / LAST).write_bytes(b"cut short")
    assert load_checkpoint(tmp_path).step == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.mamba.registers": False}, "model.mamba.registers is True there and False here"),
        ({"train.lr": 1e-3, "train.batch": 8}, "train.batch is 4 there and 8 here; train.lr is 0.002 there and 0.001"),
    ],
)
def test_another_recipe_s_checkpoint_is_refused_by_field(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    train(small(steps=2), world(), tmp_path)
    with pytest.raises(ValueError, match=said):
        train(small(steps=2).changed(changes), world(), tmp_path)


def test_another_world_s_checkpoint_is_refused(tmp_path: Path) -> None:
    train(small(steps=2), world(), tmp_path)
    with pytest.raises(ValueError, match=r"data\.level is easy there and default here"):
        train(small(steps=2), ShapesWorld("default"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_what_is_no_checkpoint_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    if content is None:
        torch.save([1, 2], path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_another_version_s_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="format 99"):
        load_checkpoint(tmp_path / "file.pt")


def test_a_recipe_of_another_version_is_refused_by_field(tmp_path: Path) -> None:
    path = train(small(steps=1), world(), tmp_path)
    found = torch.load(path, weights_only=True)
    found["recipe"] = found["recipe"].replace('"dual_blocks"', '"twin_blocks"')
    torch.save(found, path)
    with pytest.raises(ValueError, match=r"does not fit this program: .*twin_blocks") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


class Spoilt(ShapesWorld):
    """A world whose step 3 raises something, for seed 7: training reads that one, the codec's statistics do not."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__("easy")
        self.error = error

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        if step == 3 and seed == 7 and self.error:
            raise self.error
        return super().batch(step, size, seed=seed, images=images)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    made = small(lr=1e30, clip=0.0, warmup=0, save_every=1)
    with pytest.raises(TrainingFailed, match=r"at step \d.*last\.pt.*lower train\.lr \(now 1e\+30\)") as caught:
        train(made, world(), tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / LAST).exists()


def test_without_a_checkpoint_that_is_said(tmp_path: Path) -> None:
    weight = "velocity.embed_video.weight"
    broken = {weight: torch.full_like(build_system(small()).state_dict()[weight], torch.nan)}
    with pytest.raises(TrainingFailed, match="became nan at step 0; there was no checkpoint yet"):
        train(small(), world(), tmp_path, init=broken)
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"at step 3: lower train\.micro_batch to 2 \(now 4\), or set train\.act"):
        train(small(seed=7), Spoilt(error), tmp_path)
    assert load_checkpoint(tmp_path).step == 2


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a cable came loose"):
        train(small(seed=7), Spoilt(RuntimeError("a cable came loose")), tmp_path)


def test_training_starts_from_given_weights(tmp_path: Path) -> None:
    made = small(steps=1, lr=1e-12, ema=0.0)
    init = {name: value + 1 for name, value in build_system(made, seed=5).state_dict().items() if "embed" in name}
    model = load_checkpoint(train(made, world(), tmp_path, init=init)).model
    fresh = build_system(made).state_dict()
    for name, value in model.items():  # a step of 1e-12 moves nothing that float32 or this tolerance could show
        torch.testing.assert_close(value, init.get(name, fresh[name]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ({"velocity.nothing": torch.zeros(1)}, "has none of them"),
        ({"velocity.embed_video.bias": torch.zeros(1)}, "fit"),
    ],
)
def test_weights_of_another_model_are_refused(init: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        train(small(), world(), tmp_path, init=init)


def test_variants_see_the_same_data_noise_and_times(tmp_path: Path) -> None:
    """With the output layer at zero the first loss is that of the target alone, whatever the network."""
    runs = [small(steps=1), small(steps=1).changed({"model.mamba.registers": False, "model.layers": 2})]
    for number, made in enumerate(runs):
        train(made, world(), tmp_path / str(number))
    assert losses(tmp_path / "0")[0][0] == losses(tmp_path / "1")[0][0]


# PyTorch's own warning while it compiles.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("option", "system"),
    [
        ("activation_checkpointing", "pyramidflow"),
        ("activation_checkpointing", "stiv"),
        ("activation_checkpointing", "m4v"),
        ("activation_checkpointing", "lingen"),
        pytest.param("compile", "stiv", marks=pytest.mark.slow),  # the compiler alone takes a quarter of a minute
    ],
)
def test_how_a_step_is_computed_does_not_change_it(option: str, system: str, tmp_path: Path) -> None:
    """In float32: fused kernels round bfloat16 at other places."""
    for name, options in (("plain", {}), ("other", {option: True})):
        train(small(system, steps=2, precision="float32", **options), world(system), tmp_path / name)
    torch.testing.assert_close(losses(tmp_path / "other"), losses(tmp_path / "plain"), rtol=1e-5, atol=1e-6)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        train(small(steps=3, precision=precision), world(), tmp_path / precision)
    exact, rounded = losses(tmp_path / "float32"), losses(tmp_path / "bfloat16")
    torch.testing.assert_close([loss for loss, _, _ in rounded], [loss for loss, _, _ in exact], rtol=2e-2, atol=0)
    assert rounded != exact
    assert all(value.dtype == torch.float32 for value in load_checkpoint(tmp_path / "bfloat16").ema.values())


def test_image_batches_come_at_their_ratio(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watched(ShapesWorld):
        def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
            if seed == 7:
                seen.append(images)
            return super().batch(step, size, seed=seed, images=images)

    train(small(steps=6, seed=7, images=(1, 2)), Watched("easy"), tmp_path)
    assert sum(seen) == 2
    assert len(seen) == 6


def write_videos(folder: Path) -> None:
    folder.mkdir()
    source = ShapesWorld("easy")
    for number, (video, caption) in enumerate(zip(*source.batch(0, 3, seed=0), strict=True)):
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height = source.width, source.height
            for frame in video:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
            container.mux(stream.encode())
        (folder / f"{number}.txt").write_text(caption)


def test_latents_from_disk_are_those_of_the_videos(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos")
    source = make_source(str(tmp_path / "videos"), frames=17, height=32, width=32, fps=8.0)
    train(small(steps=2), source, tmp_path / "plain")
    train(small(steps=2), source, tmp_path / "cached", cache=tmp_path / "latents")
    assert len(list((tmp_path / "latents").rglob("*.npy"))) == 3
    torch.testing.assert_close(losses(tmp_path / "cached"), losses(tmp_path / "plain"), rtol=1e-5, atol=1e-6)


def test_masked_training_runs(tmp_path: Path) -> None:
    made = small("stiv", steps=2, mask_ratio=0.5)
    assert made.train.mask_ratio == 0.5
    train(made, world("stiv"), tmp_path / "masked")
    train(small("stiv", steps=2), world("stiv"), tmp_path / "plain")
    assert losses(tmp_path / "masked")[1] != losses(tmp_path / "plain")[1]


def test_the_average_is_the_recurrence() -> None:
    layer = nn.Linear(2, 1, bias=False).double()
    average, expected = Average(layer, 0.9), layer.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        average.update(layer, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.weights["weight"], expected, rtol=1e-12, atol=0)


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest() -> None:
    system = build_system(small(optimizer="muon"))
    muon, adamw = make_optimizers(system, small(optimizer="muon").train)
    names = {id(p): name for name, p in system.named_parameters()}
    hidden = {names[id(p)] for p in muon.param_groups[0]["params"]}
    others = {names[id(p)] for p in adamw.param_groups[0]["params"]}
    assert hidden | others == set(names.values())
    assert not hidden & others
    assert "velocity.blocks.2.mlp.0.weight" in hidden
    assert {"velocity.embed_video.weight", "velocity.head.linear.weight", "text.embedding.weight"} <= others
    assert not any("modulation" in name for name in hidden)
    assert is_hidden_matrix("blocks.0.out.weight", torch.zeros(2, 2))


def test_micro_batches_divide_among_processes() -> None:
    device = torch.device("cpu")
    assert [list(Processes(rank, 2, device).share(4)) for rank in (0, 1)] == [[0, 2], [1, 3]]
    with pytest.raises(ValueError, match="3 micro-batches do not divide among 2 processes"):
        Processes(0, 2, device).share(3)


MANY = """
    import sys, torch
    import torch.distributed as dist
    from pathlib import Path
    from m4v.data import ShapesWorld
    from m4v.recipe import Recipe
    from m4v.train import train
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    made, out = Recipe.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    for shard in (False, True):
        train(made.changed({"train.shard": shard}), ShapesWorld("easy"), out / str(shard))
    dist.destroy_process_group()
"""
SHARED = {"steps": 3, "micro_batch": 1, "save_every": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recipe on one process (`one`), and on two with DDP (`False`) and FSDP2 (`True`)."""
    out, made = tmp_path_factory.mktemp("many"), small(**SHARED)
    (out / "recipe.json").write_text(made.canonical_json())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script(out, MANY)), str(out / "recipe.json"), str(out)]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    train(made, world(), out / "one")
    return out


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one(shard: bool, trained: Path) -> None:
    torch.testing.assert_close(losses(trained / str(shard)), losses(trained / "one"), rtol=1e-5, atol=1e-5)
    one, two = load_checkpoint(trained / "one"), load_checkpoint(trained / str(shard))
    assert one.model.keys() == two.model.keys()
    assert one.optimizer.keys() == two.optimizer.keys()
    # AdamW divides by gradients that may be tiny: rounding moves a weight by a share of the step of 2e-3.
    for name, value in one.ema.items():
        torch.testing.assert_close(two.ema[name], value, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp2"])
def test_a_run_of_two_processes_goes_on_in_one(shard: bool, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / str(shard), tmp_path / "cut")
    (tmp_path / "cut" / LAST).unlink()  # as if killed after step 2
    train(small(**SHARED), world(), tmp_path / "cut")
    torch.testing.assert_close(losses(tmp_path / "cut"), losses(trained / "one"), rtol=1e-5, atol=1e-5)


def test_a_sharded_checkpoint_samples_in_one_process(trained: Path) -> None:
    made, system, _ = load_system(trained / "True")
    latent = made.model.codec.latent_shape(*made.model.clip)
    velocity = system([torch.zeros(1, 8, *latent)], torch.tensor([0.5]), ["a red circle"])
    assert velocity.isfinite().all()
    assert velocity.any()

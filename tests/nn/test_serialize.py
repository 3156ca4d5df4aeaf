"""Files of arrays, checkpoints whose resumption gives the same bits, and damaged or hostile files."""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random, serialize
from irconv.data import Batches
from irconv.errors import IrconvError, ModelError, StateError

BOTH = ["state.npz", "state.safetensors"]
STATE = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scalar": np.float64(1.5),
    "count": np.int64(7),
    "half": np.array([1.5, -2], np.float16),
    "key": np.array([1, 2**32 - 1], np.uint32),
    "step": np.uint64(2**63),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "file": np.ones(2, np.float32),  # a name that numpy.savez cannot take
    "nested/name.with spaces": np.ones((2, 1), np.int8),
}


@pytest.mark.parametrize("name", BOTH)
def test_round_trip_is_exact(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    serialize.save(STATE, path)
    found = serialize.load(path)
    assert found.keys() == STATE.keys()
    for key, value in STATE.items():
        assert found[key].dtype == np.asarray(value).dtype, key
        assert found[key].shape == np.shape(value), key
        np.testing.assert_array_equal(found[key], value)
        found[key][...] = 0  # writable
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", BOTH)
def test_any_memory_order(tmp_path: Path, name: str) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    serialize.save({"t": x.T, "s": x[:, ::2, ::-1], "big": x.astype(">f4")}, tmp_path / name)
    found = serialize.load(tmp_path / name)
    np.testing.assert_array_equal(found["t"], x.T)
    np.testing.assert_array_equal(found["s"], x[:, ::2, ::-1])
    np.testing.assert_array_equal(found["big"], x)


def test_others_read_and_write_the_same_files(tmp_path: Path) -> None:
    import safetensors.numpy

    serialize.save(STATE, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["conv.weight"], STATE["conv.weight"])
    np.savez_compressed(tmp_path / "b.npz", x=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert serialize.load(tmp_path / "b.npz")["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    serialize.save(STATE, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "a.safetensors")["half"], STATE["half"])


@pytest.mark.parametrize("name", BOTH)
def test_writing_replaces_whole_files_only(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    serialize.save(STATE, path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ModelError, match="disk is full"):
        serialize.save({"x": np.ones(3)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
    monkeypatch.undo()
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    np.savez(tmp_path / "a.npz", x=np.array([Bad()], dtype=object))
    with pytest.raises(StateError, match="holds Python objects"):
        serialize.load(tmp_path / "a.npz")
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(StateError, match="cannot be read"):
        serialize.load(tmp_path / "b.safetensors")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", BOTH)
def test_damaged_files_are_one_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    serialize.save(STATE, path)
    whole = path.read_bytes()
    random_source = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in random_source.integers(0, len(data), 3):
            data[place] = random_source.integers(0, 256)
        path.write_bytes(bytes(data[: random_source.integers(0, len(data) + 1)]))
        with contextlib.suppress(IrconvError):
            serialize.load(path)


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(118 - 1) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(StateError, match="claims 8000000000000 bytes"):
        serialize.load(tmp_path / "a.npz")


def test_bad_paths_and_values(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is neither \.npz nor \.safetensors"):
        serialize.save(STATE, tmp_path / "state.pt")
    with pytest.raises(ModelError, match="there is no file"):
        serialize.load(tmp_path / "none.npz")
    with pytest.raises(StateError, match="3 is not a name"):
        serialize.save({3: np.ones(1)}, tmp_path / "a.npz")
    with pytest.raises(StateError, match="without zero bytes"):
        serialize.save({"a\0b": np.ones(1)}, tmp_path / "a.npz")
    with pytest.raises(IrconvError, match="not an element type"):
        serialize.save({"x": np.array(["a"])}, tmp_path / "a.npz")
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "folder.npz", tmp_path / "none" / "a.npz"):
        with pytest.raises(ModelError, match="cannot write"):
            serialize.save(STATE, path)


# --- checkpoints -------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        return self.head(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


def parts(seed: int) -> tuple[Net, optim.Optimizer, optim.Schedule, Batches]:
    random.manual_seed(seed)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 20)
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
    return model, optimizer, optim.ExponentialLR(optimizer, 0.9), Batches(data, 6, seed=seed, prefetch=1)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("compiled", [True, False])
def test_resuming_gives_the_same_bits_as_not_having_stopped(tmp_path: Path, name: str, compiled: bool) -> None:
    generator = random.default_generator()

    def stepper(model: Net, optimizer: optim.Optimizer):
        if compiled:
            return irconv.compile_step(model, F.cross_entropy, optimizer, backend="numpy")

        def step(x: np.ndarray, t: np.ndarray) -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    model, optimizer, schedule, batches = parts(1)
    step = stepper(model, optimizer)
    for number, (x, t) in enumerate(batches):
        step(x, t)
        schedule.step()
        if number == 1:
            break
    serialize.save_checkpoint(
        tmp_path / name,
        model,
        optimizer,
        generator,
        epoch=3,
        best=0.5,
        data=batches.state_dict(),
        schedule=schedule.state_dict(),
    )
    resumed = Batches(batches.arrays, 6, seed=1)
    resumed.load_state_dict(batches.state_dict())
    losses = [step(x, t) for _ in range(2) for x, t in resumed]
    wanted, kept = model.state_dict(), optimizer.state_dict()

    model, optimizer, schedule, batches = parts(2)
    step = stepper(model, optimizer)
    extra = serialize.load_checkpoint(tmp_path / name, model, optimizer, generator)
    assert extra["epoch"] == 3
    assert extra["best"] == 0.5
    schedule.load_state_dict(extra["schedule"])
    batches.load_state_dict(extra["data"])
    assert [step(x, t) for _ in range(2) for x, t in batches] == losses
    for key, value in wanted.items():
        np.testing.assert_array_equal(model.state_dict()[key], value, err_msg=key)
    assert optimizer.state_dict().keys() == kept.keys()
    for key, value in kept.items():
        np.testing.assert_array_equal(optimizer.state_dict()[key], value, err_msg=key)


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    model, optimizer, _, _ = parts(1)
    serialize.save_checkpoint(tmp_path / "a.npz", model, optimizer)
    other = nn.Linear(3, 3)
    before = other.state_dict()
    with pytest.raises(StateError, match="the state does not fit Linear"):
        serialize.load_checkpoint(tmp_path / "a.npz", other)
    np.testing.assert_array_equal(other.state_dict()["weight"], before["weight"])
    with pytest.raises(StateError, match="holds no generator"):
        serialize.load_checkpoint(tmp_path / "a.npz", model, optimizer, random.Generator(0))
    plain = optim.SGD(model.parameters())
    weights = model.state_dict()
    with pytest.raises(StateError, match="the state does not fit SGD"):
        serialize.load_checkpoint(tmp_path / "a.npz", model, plain)
    np.testing.assert_array_equal(model.state_dict()["head.weight"], weights["head.weight"])
    serialize.save({"x": np.ones(1)}, tmp_path / "b.npz")
    with pytest.raises(StateError, match="is not a checkpoint: it holds 'x'"):
        serialize.load_checkpoint(tmp_path / "b.npz", model)
    with pytest.raises(StateError, match="note is a str"):
        serialize.save_checkpoint(tmp_path / "c.npz", model, note="hello")


def test_weights_of_a_torch_model_load(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(ours[0].weight.numpy(), theirs[0].weight.detach().numpy())
    serialize.save(theirs.state_dict(), tmp_path / "a.safetensors")
    ours.load_state_dict(serialize.load(tmp_path / "a.safetensors"))

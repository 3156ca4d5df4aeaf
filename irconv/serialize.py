"""Arrays by name in a file, .npz or .safetensors, and whole training runs as checkpoints.  Nothing is ever pickled.

A file is written beside its place and moved there when it is complete, so a reader never finds half of one.
"""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import safetensors.numpy

from irconv.concrete import as_array
from irconv.errors import IrconvError, ModelError, StateError
from irconv.structure import build

SUFFIXES = (".npz", ".safetensors")


def save(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write arrays by name (a ``state_dict``) to a .npz or .safetensors file.  Raises ModelError if it cannot be written."""
    target = _checked_path(path)
    arrays = {}
    for name, value in state.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise StateError(f"{name!r} is not a name for an array", hint="use non-empty strings without zero bytes")
        array = as_array(value)
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    handle, temporary = _beside(target)
    try:
        with os.fdopen(handle, "wb") as file:
            if target.suffix == ".npz":
                _write_npz(file, arrays)
            else:
                file.write(safetensors.numpy.save(arrays))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise ModelError(f"cannot write {str(target)!r}: {error}", hint="check that there is room") from error
        raise


def writable_path(path: str | os.PathLike[str]) -> Path:
    """The path, found to be one that :func:`save` can write.  Raises ModelError."""
    target = _checked_path(path)
    handle, temporary = _beside(target)
    os.close(handle)
    os.unlink(temporary)
    return target


def _beside(target: Path) -> tuple[int, str]:
    """A new file in the target's folder."""
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        return tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        hint = "check that the folder exists and can be written"
        raise ModelError(f"cannot write {str(target)!r}: {error}", hint=hint) from None


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a .npz or .safetensors file by name.

    Raises ModelError if there is no such file, StateError for one that is damaged, holds Python objects, or claims more data than
    it has.
    """
    source = _checked_path(path)
    if not source.is_file():
        raise ModelError(f"there is no file {str(source)!r}")
    try:
        return _read_npz(source) if source.suffix == ".npz" else safetensors.numpy.load(source.read_bytes())
    except IrconvError:
        raise
    except (
        safetensors.SafetensorError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        EOFError,
        OSError,
        TypeError,
    ) as error:
        raise StateError(
            f"{str(source)!r} cannot be read: {error}", hint="the file is damaged or not of its type"
        ) from None


def _checked_path(path: str | os.PathLike[str]) -> Path:
    checked = Path(path)
    if checked.suffix not in SUFFIXES:
        raise ModelError(f"{str(checked)!r} is neither .npz nor .safetensors", hint="the name's ending says the format")
    return checked


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    # numpy.savez takes names as keywords, and not every name can be one
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename.removesuffix(".npy"): _read_entry(archive, info) for info in archive.infolist()}


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array, its size checked against the archive's before memory is taken for it."""
    with archive.open(info) as entry:
        version = np.lib.format.read_magic(entry)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
            version
        )
        if read_header is None:
            raise StateError(f"{info.filename!r} is in .npy format {version}, which is not known")
        shape, fortran, dtype = read_header(entry)
        wanted = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise StateError(f"{info.filename!r} holds Python objects, which are never loaded")
        if wanted > info.file_size or info.file_size > 1100 * max(info.compress_size, 1):
            raise StateError(f"{info.filename!r} claims {wanted} bytes of data, the file holds fewer")
        data = entry.read(wanted)
    if len(data) != wanted:
        raise StateError(f"{info.filename!r} is cut short")
    array = np.frombuffer(data, dtype).reshape(shape[::-1]).T if fortran else np.frombuffer(data, dtype).reshape(shape)
    return as_array(array).copy()


# --- checkpoints -------------------------------------------------------------------------------------------------------

_PARTS = ("model", "optimizer", "generator", "extra")


def save_checkpoint(
    path: str | os.PathLike[str], model: Any, optimizer: Any = None, generator: Any = None, **extra: Any
) -> None:
    """Write everything that a training run goes on from: parameters, buffers, optimiser state, random state, and what you add.

    extra: numbers, arrays, and dicts or lists of them, such as ``epoch=3, data=batches.state_dict()``.
    """
    state: dict[str, Any] = {f"model/{name}": array for name, array in model.state_dict().items()}
    if optimizer is not None:
        optimizer.bind_module(model)
        state |= {f"optimizer/{name}": array for name, array in optimizer.state_dict().items()}
    if generator is not None:
        state |= {f"generator/{name}": array for name, array in generator.state_dict().items()}
    for name, value in extra.items():
        state |= {f"extra/{path}": array for path, array in _flattened(name, value)}
    save(state, path)


def load_checkpoint(
    path: str | os.PathLike[str], model: Any, optimizer: Any = None, generator: Any = None
) -> dict[str, Any]:
    """Put a training run back where :func:`save_checkpoint` found it, and return what was added to it.

    Compiled steps made from these objects go on with the same bits as if they had never stopped.  Everything is checked before
    anything is changed: StateError for a checkpoint that does not fit.
    """
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in _PARTS}
    for name, array in load(path).items():
        part, slash, rest = name.partition("/")
        if not slash or part not in parts:
            raise StateError(
                f"{str(path)!r} is not a checkpoint: it holds {name!r}", hint="save_checkpoint writes checkpoints"
            )
        parts[part][rest] = array
    for part, given in (("optimizer", optimizer), ("generator", generator)):
        if given is not None and not parts[part]:
            raise StateError(f"the checkpoint {str(path)!r} holds no {part}")
    if optimizer is not None:
        optimizer.bind_module(model)
        optimizer.checked_state(parts["optimizer"])
    if generator is not None:
        generator.checked_state(parts["generator"])
    model.load_state_dict(parts["model"])
    if optimizer is not None:
        optimizer.load_state_dict(parts["optimizer"])
    if generator is not None:
        generator.load_state_dict(parts["generator"])
    items = [(name, array.item() if array.ndim == 0 else array) for name, array in parts["extra"].items()]
    return _as_dict(items)


def _flattened(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flattened(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _flattened(f"{path}.{index}", item)
    elif isinstance(value, (bool, int, float, np.ndarray, np.generic)) or hasattr(value, "__array__"):
        yield path, np.asarray(value)
    else:
        raise StateError(f"{path} is a {type(value).__name__}, and a checkpoint holds numbers and arrays only")


def _as_dict(items: list[tuple[str, Any]]) -> dict[str, Any]:
    built = build(items) if items else {}
    return dict(built)

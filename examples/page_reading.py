"""Finds the lines of text on a photographed page and reads them, with two real networks (PP-OCRv4).

The first network says of each pixel how likely it is text; pixels that hang together make a line.  The second sees one line at a
time, 48 pixels high, and says which character stands at each place (Du et al., PP-OCR, 2020).  The networks run through irconv.

A box is (left, top, right, bottom) in pixels; arrays of boxes are [N,4].
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import networkx as nx
import numpy as np
import onnx
from packaged import RAPIDOCR, SCIKIT_IMAGE, DataError
from PIL import Image, ImageDraw

import irconv

DETECTION, RECOGNITION = "ch_PP-OCRv4_det_infer.onnx", "ch_PP-OCRv4_rec_infer.onnx"
MULTIPLE = 32
"""Sides of images must be multiples of this for the first network."""

PIXEL_THRESHOLD, LINE_THRESHOLD = 0.3, 0.5
"""How likely a pixel, and a line in the mean, must be text."""

READING_THRESHOLD = 0.5
"""How sure a reading must be in the mean."""

WIDENING = 1.6
"""The first network marks only the middle of lines; how much wider they are in truth."""

LINE_HEIGHT = 48
"""Of what the second network sees."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line of text: its box, how sure the reading is, and what it says."""

    box: np.ndarray
    score: float
    text: str


class Reader:
    """The two networks, compiled for the sizes that come."""

    def __init__(self, backend: str = "auto") -> None:
        self.detect = irconv.compile(RAPIDOCR.path(DETECTION), backend=backend)
        self.recognise = irconv.compile(RAPIDOCR.path(RECOGNITION), backend=backend)
        self.characters = alphabet(RAPIDOCR.path(RECOGNITION))

    def __call__(self, page: Image.Image, scale: float = 2.0) -> list[Line]:
        """The lines of a page from top to bottom; ``scale`` makes small print larger."""
        boxes = self.boxes(page, scale)
        return self.lines(page, boxes) if len(boxes) else []

    def boxes(self, page: Image.Image, scale: float = 2.0) -> np.ndarray:
        """Where the lines are."""
        width, height = (max(round(side * scale / MULTIPLE), 1) * MULTIPLE for side in page.size)
        likely = self.detect(normalised(page.resize((width, height), Image.Resampling.BICUBIC))[None])[0, 0]
        found = [line for line in regions(likely > PIXEL_THRESHOLD) if likely[tuple(line.T)].mean() > LINE_THRESHOLD]
        if not found:
            return np.empty((0, 4))
        boxes = np.stack([np.concatenate([line.min(axis=0)[::-1], line.max(axis=0)[::-1] + 1]) for line in found])
        boxes = widened(boxes) * np.tile(np.array(page.size) / (width, height), 2)
        boxes = np.clip(boxes, 0, np.tile(page.size, 2))
        return boxes[np.argsort(boxes[:, 1])]

    def lines(self, page: Image.Image, boxes: np.ndarray) -> list[Line]:
        """What stands in the boxes, without what cannot be read."""
        strips = [strip(page, box) for box in boxes]
        widest = max(each.shape[2] for each in strips)
        batch = np.zeros((len(strips), 3, LINE_HEIGHT, widest), np.float32)
        for row, each in zip(batch, strips, strict=True):
            row[:, :, : each.shape[2]] = each
        chances = self.recognise(batch)
        found = [Line(box, *self.read(places)) for box, places in zip(boxes, chances, strict=True)]
        return [line for line in found if line.score > READING_THRESHOLD]

    def read(self, chances: np.ndarray) -> tuple[float, str]:
        """How sure, and the text, for chances [places, characters]: the likeliest, repeats and blanks left out."""
        likeliest = chances.argmax(axis=1)
        counts = (likeliest != 0) & np.append(True, likeliest[1:] != likeliest[:-1])
        if not counts.any():
            return 0.0, ""
        return float(chances.max(axis=1)[counts].mean()), "".join(self.characters[i] for i in likeliest[counts])


def alphabet(path: Path) -> list[str]:
    """The characters that the network knows, by number: a blank, those that its file lists, a space."""
    properties = {each.key: each.value for each in onnx.load(path).metadata_props}
    return ["", *properties["character"].split("\n"), " "]


def normalised(image: Image.Image) -> np.ndarray:
    """An image as these networks want it: [3,H,W], blue first, from -1 to 1."""
    pixels = np.asarray(image, np.float32)[:, :, ::-1]
    return np.ascontiguousarray((pixels / 127.5 - 1).transpose(2, 0, 1))


def strip(page: Image.Image, box: np.ndarray) -> np.ndarray:
    """One line of the page in the height of the second network [3,48,W]."""
    left, top, right, bottom = box
    width = max(round((right - left) / (bottom - top) * LINE_HEIGHT / MULTIPLE), 1) * MULTIPLE
    return normalised(page.resize((width, LINE_HEIGHT), Image.Resampling.BICUBIC, tuple(box)))


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """The sets of pixels that hang together, each as rows and columns [N,2]."""
    pixels = np.argwhere(mask)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(len(pixels))
    graph = nx.Graph()
    graph.add_nodes_from(range(len(pixels)))
    for near, far in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        both = mask[near] & mask[far]
        graph.add_edges_from(zip(number[near][both].tolist(), number[far][both].tolist(), strict=True))
    return [pixels[sorted(part)] for part in nx.connected_components(graph)]


def widened(boxes: np.ndarray) -> np.ndarray:
    """Boxes with room on all sides: area over perimeter, times the widening."""
    sides = boxes[:, 2:] - boxes[:, :2]
    room = WIDENING * sides.prod(axis=1, keepdims=True) / (2 * sides.sum(axis=1, keepdims=True))
    return np.hstack([boxes[:, :2] - room, boxes[:, 2:] + room])


def drawn(page: Image.Image, lines: list[Line], scale: int = 2) -> Image.Image:
    """The page, larger, with a frame around each line."""
    picture = page.resize((page.width * scale, page.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for line in lines:
        pen.rectangle(tuple(line.box * scale), outline=(230, 60, 30), width=2)
    return picture


@click.command()
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: a page of a book.")
@click.option("--scale", default=2.0, show_default=True, type=click.FloatRange(0.1, 10), help="Makes small print larger.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--output", default="page.png", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(image: Path | None, scale: float, backend: str, output: Path) -> None:
    """Read a photographed page."""
    try:
        reader = Reader(backend)
        page = Image.open(image or SCIKIT_IMAGE.path("page.png")).convert("RGB")
    except DataError as error:
        sys.exit(str(error))
    start = time.perf_counter()
    lines = reader(page, scale)
    print(f"{len(lines)} lines in {time.perf_counter() - start:.2f} s, compiling included")
    for line in lines:
        print(f"  {line.score:4.0%} sure: {line.text}")
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn(page, lines).save(output)
    print(f"picture: {output}")


if __name__ == "__main__":
    main()

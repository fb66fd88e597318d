"""A synthetic data set: coloured shapes on grey noise, whose class vectors are shape and colour."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SHAPES, COLORS = ("square", "disc", "cross"), {"red": 0, "green": 1, "blue": 2}
CONFIG = """
model:
  preprocess: {shorter_edge: 96, longer_edge: 128}
  backbone: {name: resnet18, frozen: none}
  proposals:
    {channels: 64, anchor_sizes: [24, 36, 48], pre_nms_top: 300, post_nms_top: 30, min_size: 4}
  regions: {output_size: [4, 4]}
  scoring:
    {vector_dim: 6, joint_dim: 64, hidden_dim: 32, contrast_dim: 32, similarity_temperature: 0.2}
training:
  {optimizer: adamw, learning_rate: 0.001, schedule: cosine, warmup_steps: 20, batch_size: 4,
   regions: 16, foreground: 0.5, clip_norm: 5, workers: 0}
"""
SMALL = """
model:
  preprocess: {shorter_edge: 64, longer_edge: 64}
  backbone: {name: resnet18, frozen: all}
  proposals:
    {channels: 16, anchor_sizes: [16, 32], pre_nms_top: 100, post_nms_top: 20, min_size: 4}
  regions: {output_size: [2, 2]}
  scoring: {vector_dim: 6, joint_dim: 16, hidden_dim: 8, contrast_dim: 8}
training:
  {optimizer: adamw, learning_rate: 0.001, batch_size: 4, cache: regions, regions: 8,
   foreground: 0.5, workers: 0, epochs: 1, head_epochs: 1, versions: 1}
"""
UNSEEN = ("blue square", "red cross")
CLASSES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
SEEN = tuple(name for name in CLASSES if name not in UNSEEN)


def vector(name: str) -> np.ndarray:
    """One hot for the shape beside one hot for the colour, unit length."""
    color, shape = name.split()
    values = np.array([shape == s for s in SHAPES] + [color == c for c in COLORS], np.float32)
    return values / np.sqrt(2)


def draw(image: np.ndarray, name: str, x: int, y: int, size: int) -> None:
    """Draw an object whose box is (x, y, x + size, y + size)."""
    color, shape = name.split()
    ink = [40, 40, 40]
    ink[COLORS[color]] = 230
    half = size // 2
    if shape == "square":
        image[y : y + size, x : x + size] = ink
    elif shape == "disc":
        cv2.circle(image, (x + half, y + half), half, ink, -1)
    else:
        third = size // 3
        image[y + third : y + size - third, x : x + size] = ink
        image[y : y + size, x + third : x + size - third] = ink


def write_shapes(folder: Path, names: tuple[str, ...], count: int, seed: int, size: int = 128):
    """Write ``count`` pictures with one object of each quadrant drawn by chance, and COCO JSON.

    Returns the annotation file and the image folder.
    """
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        image = rng.integers(100, 156, (size, size, 3), np.uint8)
        for quadrant in rng.permutation(4)[: rng.integers(1, 4)]:
            name, side = str(rng.choice(names)), int(rng.integers(size // 4, size // 2 - 4))
            spare = size // 2 - side
            x = int(quadrant % 2 * size // 2 + rng.integers(spare))
            y = int(quadrant // 2 * size // 2 + rng.integers(spare))
            draw(image, name, x, y, side)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "bbox": [x, y, side, side],
                    "category_id": CLASSES.index(name) + 1,
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        file_name = f"{number:04}.png"
        cv2.imwrite(str(folder / "images" / file_name), image[:, :, ::-1])
        images.append({"id": number, "file_name": file_name, "width": size, "height": size})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    path = folder / "annotations.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path, folder / "images"


def write_split(folder: Path) -> Path:
    """Write the split and return its path."""
    path = folder / "split.json"
    path.write_text(json.dumps({"name": "shapes", "seen": SEEN, "unseen": UNSEEN}))
    return path


def write_vectors(folder: Path) -> Path:
    """Write the class vectors and return their path."""
    path = folder / "vectors.npz"
    np.savez(path, names=np.array(CLASSES), vectors=np.stack([vector(n) for n in CLASSES]))
    return path


def write_config(
    folder: Path, images: int, config: str = CONFIG, names: tuple[str, ...] = SEEN, size: int = 128
) -> Path:
    """Write training images of ``names``, split, vectors and configuration; return the last."""
    annotations, pictures = write_shapes(folder / "train", names, images, seed=0, size=size)
    path = folder / "shapes.yaml"
    path.write_text(
        config
        + f"data: {{annotations: [{annotations}], images: [{pictures}], "
        + f"split: {write_split(folder)}, vectors: {write_vectors(folder)}}}\n"
    )
    return path

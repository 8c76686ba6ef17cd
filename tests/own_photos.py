"""Folders of photos that tests make: small random ones, the same on every machine."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Draw random pixels, (width, height)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def fill(folder: Path, counts: dict[str, int], seed: int = 0, suffix: str = ".bmp") -> Path:
    """Write so many photos into each sub-folder of a folder. BMP files are the same with every Pillow."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            photo(10_000 * seed + 1000 * number + i).save(folder / name / f"{i}{suffix}")
    return folder

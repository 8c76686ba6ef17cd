"""Photos in files as people have them: turned, grey, with a palette, transparent, for print, of 16 bits."""

import hashlib
import io
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Photos as well, of formats that are not read: never passed over as if they were no photos.
FOREIGN = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".raw", ".dng"),
    *(".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef"),
)
PIXELS = 178_956_970  # Pillow's own limit: beyond it, a small file may fill the memory
LARGE = 2**23  # pixels: larger photos are halved before they are resized, as memory is what limits
BYTES = 2**30  # of a file: no photo has more, and a file is read as a whole
HUGE = 2**25  # pixels: larger photos are decoded one at a time, as each may take up to 3 GB
ROWS = 256  # of a photo in fractions that are converted at once
THUMBNAIL = 64  # pixels: the side from which a photo's brightness is told

Image.init()  # or some formats are unknown until Pillow has met another
# Photos between a half of Pillow's limit and the limit are allowed here; Pillow would warn of each.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_alone = threading.Lock()

_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """A photo cannot be read; the message is the reason."""


def read(path: Path) -> np.ndarray:
    """Decode a photo: the first frame, upright, in RGB; what is transparent becomes white.

    Returns
    -------
    ndarray of uint8, (height, width, 3)

    Raises
    ------
    Unreadable
    """
    try:
        image = _opened(_content(path))
        with _in_turn(image):
            image.load()
            upright = _rgb(_upright(image))
            while upright.width * upright.height > LARGE:
                upright = upright.reduce(2)
            return np.asarray(upright)
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise Unreadable(reason(error)) from None


def look(path: Path) -> dict[str, Any]:
    """Hash a photo, decode it, and note what the data checks ask for.

    A JPEG is decoded at an eighth of its size. That is fast, and still reads the whole file.

    Returns
    -------
    dict
        sha256 (of the file), width and height (pixels, upright), format, and the brightness (0 to 255) that 5 % and
        99 % of the pixels stay below: p5, p99. For a photo that cannot be read: reason.
    """
    try:
        content = _content(path)
        image = _opened(content)
        width, height = image.size
        image.draft(None, (THUMBNAIL, THUMBNAIL))
        with _in_turn(image):
            image.load()
            upright = _upright(image)
            if _orientation(image) >= 5:
                width, height = height, width
            small = _rgb(upright).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        p5, p99 = np.percentile(np.asarray(small), (5, 99)).round(1)
    except Exception as error:
        return {"reason": reason(error)}
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "width": width,
        "height": height,
        "format": {"MPO": "JPEG"}.get(str(image.format), str(image.format)),
        "p5": float(p5),
        "p99": float(p99),
    }


def reason(error: Exception) -> str:
    """Say in a few words why a photo cannot be read."""
    match error:
        case Unreadable():
            return str(error)
        case FileNotFoundError():
            return "there is no such file"
        case UnidentifiedImageError():
            return "not a photo in JPEG, PNG, WebP, BMP, GIF or TIFF"
        case OSError(strerror=str(words)):
            return words.lower()
    return f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__})"


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > BYTES:
        raise Unreadable(f"{size / 2**20:,.0f} MB: more than {BYTES / 2**20:,.0f}")
    return path.read_bytes()


def _in_turn(image: Image.Image) -> AbstractContextManager:
    """Let one thread at a time decode a huge photo: a small file may hold one."""
    return _alone if image.width * image.height > HUGE else nullcontext()


def _opened(content: bytes) -> Image.Image:
    """Read a photo's header; its pixels are not decoded yet."""
    if not content:
        raise Unreadable("the file is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {PIXELS / 1e6:.0f} million pixels") from None
    if image.width * image.height > PIXELS:
        raise Unreadable(f"{image.width} x {image.height} pixels: more than {PIXELS / 1e6:.0f} million")
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data: the photo itself can still be read
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turn or mirror a photo as its EXIF data say; Pillow has turned a TIFF when it loaded it."""
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert a photo of any mode to RGB."""
    if image.mode.startswith(("I", "F")):  # whole numbers of 16 or 32 bits, or fractions
        return Image.fromarray(_bytes(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Bring grey values to 0 to 255, some rows at a time: as fractions, those of a huge photo would take gigabytes."""
    blocks = np.array_split(values, -(-len(values) // ROWS) or 1)
    highest = max(np.nan_to_num(block.astype(float)).max(initial=0) for block in blocks)
    whole = np.empty(values.shape, np.uint8)
    for block, found in zip(np.array_split(whole, len(blocks)), blocks):
        fractions = np.nan_to_num(found.astype(float))
        if mode.startswith("I;16") or highest > 255:
            fractions /= 257
        elif mode == "F" and highest <= 1:
            fractions *= 255
        block[:] = fractions.clip(0, 255).round()
    return whole

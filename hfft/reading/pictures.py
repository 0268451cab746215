"""Pictures as rows: where each one is, whether it can be decoded, and a hash of its bytes.

A cell is {bytes, path}. Every picture is decoded whole: `Image.verify()` passes truncated JPEGs, so it is no check.
"""

import functools
import hashlib
import io
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hfft.image import MAX_PIXELS, from_array, to_rgb
from hfft.messages import InputError, first_line, warn
from hfft.reading.source import File, Problem, Source, plural, shown

SMALL, LONG = 8, 20  # pixels, ratio of the sides: below and above, a picture is hardly meant
REPLACE = "replace or remove the picture, or set data.on_bad_row: skip"


@dataclass
class Check:
    """What reading pictures told: a hash for each, problems, and oddities counted with their first example."""

    digests: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    odd: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def warn(self, split: str) -> None:
        """One line for each kind of odd picture."""
        for kind, count in self.odd.items():
            warn(f"{split}: {plural(count, 'picture')} {kind} (first: {self.examples[kind]})")


def to_cells(source: Source, column: str) -> tuple[Any, list[Problem]]:
    """A column of paths, bytes, {bytes, path}, PIL images or arrays -> an arrow column of {bytes, path}."""
    import pyarrow as pa

    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = source.columns[column]
    if isinstance(values, pa.ChunkedArray) and values.type == kind and all_readable(values, source):
        return values, []
    cells: list[dict[str, Any] | None] = []
    problems = []
    for i in range(len(values)):
        value = values[i].as_py() if isinstance(values, pa.ChunkedArray) else values[i]
        try:
            cells.append(to_cell(value, source.files[source.file_ids[i]]))
        except ValueError as error:
            what, remedy = error.args
            cells.append(None)
            problems.append(Problem(i, column, value, what, remedy))
    blocks = [pa.array(cells[start : start + 1000], kind) for start in range(0, len(cells), 1000)]  # 2 GB at most each
    return pa.chunked_array(blocks, kind), problems


def all_readable(values: Any, source: Source) -> bool:
    """Whether cells need no look one by one: all have bytes, or they are files that a folder's reading found."""
    import pyarrow.compute as pc

    found = all(not file.unit for file in source.files)
    return not values.null_count and (found or not pc.any(pc.is_null(pc.struct_field(values, "bytes"))).as_py())


def to_cell(value: Any, origin: File) -> dict[str, Any]:
    """One picture as {bytes, path}. Raises ValueError(what, remedy)."""
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("is empty", "give a picture's path")
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value), "path": None}
    if isinstance(value, str | os.PathLike):
        return {"bytes": None, "path": find(os.fspath(value), origin)}
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        try:
            value = from_array(value)
        except InputError as error:
            raise ValueError(*str(error).split("; ")) from None
    if hasattr(value, "save") and hasattr(value, "mode"):
        return {"bytes": encoded(value), "path": None}
    raise ValueError(f"is a {type(value).__name__}, no picture", "give a path, bytes, a PIL image or an array")


def encoded(picture: Any) -> bytes:
    """`encode`. Raises ValueError(what, remedy) for a picture whose file is damaged or closed by now."""
    try:
        return encode(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"cannot be read ({error})", "give a picture that can be opened") from None


def encode(picture: Any) -> bytes:
    """A PIL image as bytes without loss, its EXIF orientation kept."""
    stream = io.BytesIO()
    lossless = "TIFF" if picture.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV", "I") else "PNG"
    picture.save(stream, lossless, exif=picture.getexif())
    return stream.getvalue()


def find(path: str, origin: File) -> str:
    """The file that a path in the data means: below its root, or anywhere where the caller gave it. No URLs."""
    if "://" in path[:12] or path.startswith("data:"):
        raise ValueError(f"{shown(path)} is a URL, which is not fetched", "download the pictures and give their paths")
    if origin.root is None:
        full = os.path.abspath(os.path.expanduser(path))
    else:
        full = below(path, origin.root, origin.absolute)
    if not os.path.isfile(full):
        raise ValueError(f"{shown(path)} is not there", "give a path relative to the folder of the file that names it")
    return full


def below(path: str, root: str, absolute: bool = False) -> str:
    """A relative path joined to its root, refused when it leads out of it (`..`, absolute, or by a link)."""
    real_root = real(root)
    full = os.path.join(root, path)
    if os.path.isabs(path) and not absolute:
        raise ValueError(
            f"{shown(path)} is an absolute path", "give paths relative to the folder of the file that names them"
        )
    target = os.path.join(real(os.path.dirname(full)), os.path.basename(full))
    if os.path.islink(target):
        target = os.path.realpath(target)
    if ".." in path.split(os.sep) or os.path.commonpath([real_root, target]) != real_root:
        raise ValueError(f"{shown(path)} leads out of the data's folder", "put the picture below it")
    return full


@functools.lru_cache(maxsize=4096)
def real(folder: str) -> str:
    """realpath, remembered: many pictures share a folder."""
    return os.path.realpath(folder)


def check_images(source: Source, column: str = "image", limit: int | None = None) -> Check:
    """Read every picture, decode all (or `limit`, evenly spread), and say which cannot be used."""
    from PIL import Image, ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, so damaged pictures would pass; switch it off")
    cells, size = source.columns[column], len(source)
    step = 1 if limit is None or size <= limit else -(-size // max(limit, 1))
    check = Check()

    def one(i: int) -> tuple[bytes, str | None, list[str]]:
        return look(cells[i].as_py(), decode=limit != 0 and i % step == 0)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is in `decoded`
        for i, (digest, what, odd) in enumerate(pool.map(one, range(size))):
            check.digests.append(digest)
            if what:
                path = cells[i]["path"].as_py()
                check.problems.append(Problem(i, column, path and os.path.basename(path), what, REPLACE))
            for kind in odd:
                check.odd[kind] += 1
                check.examples.setdefault(kind, source.where(i))
    return check


def look(cell: dict[str, Any] | None, *, decode: bool) -> tuple[bytes, str | None, list[str]]:
    """(hash of the bytes, what is wrong or None, what is odd). A cell without a picture was complained of before."""
    if cell is None:
        return b"", None, []
    data = cell["bytes"]
    if data is None:
        try:
            with open(cell["path"], "rb") as file:
                data = file.read()
        except OSError as error:
            return b"", f"cannot be read ({error.strerror})", []
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    if not data:
        return digest, "is an empty file (0 bytes)", []
    return digest, *(decoded(data) if decode else (None, []))


def decoded(data: bytes) -> tuple[str | None, list[str]]:
    """(what is wrong or None, what is odd) after decoding a picture whole; its size is refused from the header."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                return f"has {width}x{height} pixels, more than {MAX_PIXELS:,}", []
            odd = oddities(picture)
            if picture.format == "JPEG":
                picture.draft(picture.mode, (max(1, width // 8), max(1, height // 8)))  # all bytes are still read
            picture.load()
            if picture.mode.startswith(("I", "F")):
                to_rgb(picture)
                odd += dark(picture)
            return None, odd
    except UnidentifiedImageError:
        html = data.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml"))
        return ("is a web page, not a picture" if html else "is no picture that can be decoded"), []
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS:,} pixels", []
    except Exception as error:  # each decoder raises its own: OSError, SyntaxError, struct.error, ValueError …
        return f"is damaged ({first_line(error)})", []


def dark(picture: Any) -> list[str]:
    """Of a picture of 16 bits: whether it looks like one of 8 bits in the wrong kind of file."""
    highest = picture.getextrema()[1] if picture.mode.startswith("I;16") else 256
    return ["of 16 bits with values below 256, so nearly black"] if highest < 256 else []


def oddities(picture: Any) -> list[str]:
    """What is likely no accident-free picture but can be used."""
    width, height = picture.size
    found = []
    if min(width, height) < SMALL:
        found.append(f"with a side below {SMALL} pixels")
    if max(width, height) > LONG * min(width, height):
        found.append(f"more than {LONG} times as long as wide")
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        found.append("animated: the first frame is used")
    if picture.mode == "CMYK":
        found.append("in CMYK: converted without a colour profile")
    return found

"""A text file's characters: its encoding found or given, and nothing in it guessed in silence."""

import codecs
import io
import re
from collections.abc import Callable
from typing import TextIO

from hfft.messages import InputError, announce

BLOCK = 1 << 20  # bytes
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: str, name: str, encoding: str | None = None) -> str:
    """The file's text with its line ends kept; one line of error where the bytes do not fit the encoding."""
    with open(path, "rb") as file:
        data = file.read()
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes); give a file with rows, or take it out of data.path")
    text = decode(data, name, encoding or detect(data, name))
    position = text.find("\0")
    if position >= 0:
        raise nul(name, text.count("\n", 0, position) + 1, text.count("\0"))
    return text


def opened(path: str, name: str, encoding: str | None = None, newline: str = "") -> Callable[[], TextIO]:
    """Opens the text as often as needed: from the disk where it is plain UTF-8, else what `read_text` gave.

    Lines end where `newline` says, as for `open`; their ends are kept.
    """
    plain = plain_utf8(path) if encoding is None else None
    if plain is not None:
        return lambda: open(path, encoding=plain, newline=newline)
    text = read_text(path, name, encoding)
    return lambda: io.StringIO(text, newline=newline)


def plain_utf8(path: str) -> str | None:
    """utf-8, or with a mark utf-8-sig, of a file in which nothing has to be said; found without holding it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        head = block = file.read(BLOCK)
        if not head or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, 2 * codecs.BOM_UTF8)):
            return None
        while True:
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError:
                return None
            if "\0" in text:
                return None
            if not block:
                break
            block = file.read(BLOCK)
    return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"


def nul(name: str, line: int, count: int = 1) -> InputError:
    """The one line for NUL characters, which no text holds."""
    more = f" ({count:,} in the file)" if count > 1 else ""
    return InputError(
        f"{name} line {line}: holds a NUL character{more}, so the file is damaged or in another encoding; "
        "repair it, or set data.load.encoding (utf-16?)"
    )


def detect(data: bytes, name: str) -> str:
    """The encoding: by byte order mark, UTF-8, UTF-16 without a mark, else Windows-1252; announced when not UTF-8."""
    for mark, found in BOMS.items():
        if data.startswith(mark):
            if found == "utf-16":
                announce(f"{name}: read as UTF-16 (byte order mark; set data.load.encoding)")
            return found
    head = data[:4096]
    for start, found in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 4 and head[start::2].count(0) > len(head) // 5 and not head[1 - start :: 2].count(0):
            announce(f"{name}: read as UTF-16 (every second byte is 0; set data.load.encoding)")
            return found
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return not_utf8(data, name, error)
    return "utf-8"


def not_utf8(data: bytes, name: str, error: UnicodeDecodeError) -> str:
    """cp1252 when nothing in the file is UTF-8 beyond ASCII; a file that is UTF-8 elsewhere is damaged."""
    place = f"line {data.count(10, 0, error.start) + 1} (byte {error.start})"
    escaped = data.decode("utf-8", "surrogateescape")
    if re.search("[^\x00-\x7f\udc80-\udcff]", escaped):
        raise InputError(
            f"{name} {place}: byte 0x{data[error.start]:02x} is not UTF-8, though the rest is; "
            "repair the file, or set data.load.encoding"
        )
    announce(f"{name}: read as Windows-1252 (Latin-1), for {place} is not UTF-8 (set data.load.encoding)")
    return "cp1252"


def decode(data: bytes, name: str, encoding: str) -> str:
    """Bytes -> text, strictly."""
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise InputError(
            f"data.load.encoding: there is no encoding {encoding!r}; write utf-8, utf-16, cp1252 …"
        ) from None
    except ValueError as error:  # UnicodeDecodeError is one, and some codecs know no place
        if not isinstance(error, UnicodeDecodeError):
            raise InputError(f"{name}: is not {encoding} ({error}); set data.load.encoding to the file's own") from None
        place = f"line {data.count(10, 0, error.start) + 1} (byte {error.start})"
        byte = f"byte 0x{data[error.start]:02x}"
        raise InputError(
            f"{name} {place}: {byte} is not {encoding}; set data.load.encoding to the file's own"
        ) from None

"""One file of rows -> Source: csv, tsv, json, jsonl, parquet, arrow, feather, txt; by its ending, in any case.

Nothing is cached: a file is read anew each time, because caches keyed by size and time serve changed files stale.
"""

import json
import os
from typing import Any, NamedTuple

from hfft.lookup import hint
from hfft.messages import InputError, first_line
from hfft.reading import conll, delimited, jsonrows
from hfft.reading.source import File, Source, one_file
from hfft.reading.textfile import read_text

READS = "csv, tsv, json, jsonl, ndjson, parquet, arrow, feather, txt, conll, bio, iob, iob2"
ROWS = 1000  # of a parquet file that are unpacked at a time: read whole it would be in memory twice
PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz")


class Place(NamedTuple):
    """One file of rows: its path, its name in messages, and the reader's options (`read_table`'s arguments)."""

    path: str
    name: str
    load: dict[str, Any]


def read_table(path: str, name: str, load: dict[str, Any]) -> Source:
    """The rows of one file. `load` holds the reader's options; one that does not apply to the format is refused."""
    ending = checked_ending(path, name, load)
    source = (conll.read_conll if load.get("format") else READERS[ending][0])(path, name, load)
    source.files = [File(name, source.files[0].unit, os.path.dirname(os.path.abspath(path)))]
    return source


def checked_ending(path: str, name: str, load: dict[str, Any]) -> str:
    """The ending that says how a file is read. Raises InputError for a file or an option that is not taken."""
    ending = os.path.splitext(path)[1].lower()
    if ending in PACKED:
        raise InputError(
            f"{name}: packed files ({ending}) are not read, so that a small file cannot unpack to any size; unpack it"
        )
    if ending not in READERS:
        raise InputError(f"{name}: files ending in {ending or 'nothing'!r} are not read; give one of {READS}")
    options = READERS[ending][1]
    for key in load:
        if key not in options:
            known = f"it takes {', '.join(options)}" if options else "it takes none"
            raise InputError(f"data.load.{key}: is no option for {ending[1:]} files ({known}).{hint(key, options)}")
    if load.get("format", "conll") != "conll":
        raise InputError(f"data.load.format: {load['format']!r} is not read; write conll, or take it out")
    if not os.access(path, os.R_OK):
        raise InputError(f"{name}: may not be read (permissions); change them with chmod")
    return ending


def read_txt(path: str, name: str, load: dict[str, Any]) -> Source:
    """One row a line, in the column "text"."""
    lines = read_text(path, name, load.get("encoding")).splitlines()
    return one_file({"text": lines}, name, range(1, len(lines) + 1), "line")


def read_parquet(path: str, name: str, load: dict[str, Any]) -> Source:
    """A parquet file, with the `datasets` features stored in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=1 << 20, pre_buffer=False) as file:
            table = pa.Table.from_batches(file.iter_batches(ROWS, use_threads=False), file.schema_arrow)
        table.validate(full=True)  # a flipped bit may leave text that is no UTF-8
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: is damaged or no parquet file ({first_line(error)}); write it again") from None
    return from_table(table, name)


def read_arrow(path: str, name: str, load: dict[str, Any]) -> Source:
    """An arrow file (file, stream or feather form), with the `datasets` features stored in it."""
    import pyarrow as pa
    from pyarrow import feather

    try:
        with open(path, "rb") as file:
            is_stream = file.read(4) not in (b"ARRO", b"FEA1")
            file.seek(0)
            table = pa.ipc.open_stream(file).read_all() if is_stream else feather.read_table(path, memory_map=False)
        table.validate(full=True)  # a flipped bit may leave offsets that point outside the file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: is damaged or no arrow file ({first_line(error)}); write it again") from None
    return from_table(table, name)


def from_table(table, name: str) -> Source:
    """A pyarrow table -> Source; column names must differ, and there must be rows."""
    double = {column for column in table.column_names if table.column_names.count(column) > 1}
    if double:
        raise InputError(f"{name}: has the column '{min(double)}' twice; give every column its own name")
    if not table.num_rows:
        raise InputError(f"{name}: there are no rows in it; give a file with rows")
    source = one_file(dict(zip(table.column_names, table.columns, strict=True)), name)
    source.features = features_of(table.schema)
    return source


def features_of(schema) -> dict[str, Any]:
    """The `datasets` features that a schema's metadata carries, or {}."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if not stored:
        return {}
    from datasets import Features

    try:
        return dict(Features.from_dict(json.loads(stored)["info"]["features"]))
    except (ValueError, KeyError, TypeError):
        return {}  # written by another version: the columns are read by their arrow types


READERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    ".csv": (delimited.read_delimited, delimited.OPTIONS),
    ".tsv": (delimited.read_delimited, (*delimited.OPTIONS, "format")),
    ".json": (jsonrows.read_json, jsonrows.OPTIONS),
    ".jsonl": (jsonrows.read_jsonl, jsonrows.OPTIONS),
    ".ndjson": (jsonrows.read_jsonl, jsonrows.OPTIONS),
    ".parquet": (read_parquet, ()),
    ".arrow": (read_arrow, ()),
    ".feather": (read_arrow, ()),
    ".txt": (read_txt, ("encoding", "format")),
    **dict.fromkeys(conll.ENDINGS, (conll.read_conll, conll.OPTIONS)),
}

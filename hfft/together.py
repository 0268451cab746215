"""What the processes of a run share through collectives: main's result, main's error, main's files."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from hfft import launch
from hfft.messages import HfftError

T = TypeVar("T")
PIECE = 64 << 20  # bytes


def _alone() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def from_main(work: Callable[[], T]) -> T:
    """What `work` gives in the main process, in every process; also the error that ends it."""
    if _alone():
        return work()
    found: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            found[0] = work()
        except HfftError as error:
            found[1] = (type(error), error.lines)
        except OSError as error:
            found[1] = (OSError, error.args)
    torch.distributed.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise found[1][0](*found[1][1])
    return found[0]


def readable(folder: str | Path, *, without: Sequence[str] = ()) -> Path:
    """Main's folder, or where this machine does not see it, a copy in the launch's temporary folder.

    `without` are patterns of names (of files or folders) that nobody will read. Every process must call it.
    """
    folder = Path(folder)
    files = from_main(lambda: _listed(folder, without))
    if _alone():
        return folder
    seen = torch.tensor(int(files == _listed(folder, without)), device=_device())
    everywhere = seen.clone()
    torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
    if everywhere.item():
        return folder
    copy = launch.folder() / "copies" / folder.name
    writes = not seen.item() and launch.local_rank() == 0
    if writes:
        shutil.rmtree(copy, ignore_errors=True)
    for name, size, _ in files:
        _send(folder / name, size, copy / name if writes else None)
    torch.distributed.barrier()
    return folder if seen.item() else copy


def _device() -> torch.device:
    nccl = "nccl" in str(torch.distributed.get_backend())
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _listed(folder: Path, without: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name, size and time of every file: the same file has the same, a stale copy elsewhere has not."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    unread = re.compile("|".join(without) or "$")
    kept = [path for path in paths if not any(unread.fullmatch(part) for part in path.parts)]
    return [(str(path), (folder / path).stat().st_size, (folder / path).stat().st_mtime_ns) for path in kept]


def _send(source: Path, size: int, copy: Path | None) -> None:
    """A file's bytes from main to all, piece by piece; `copy` is where they are wanted."""
    reading = torch.distributed.get_rank() == 0
    if copy is not None:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"")
    for start in range(0, size, PIECE):
        piece = torch.empty(min(PIECE, size - start), dtype=torch.uint8)
        if reading:
            with open(source, "rb") as file:
                file.seek(start)
                piece = torch.frombuffer(bytearray(file.read(len(piece))), dtype=torch.uint8)
        piece = piece.to(_device())
        torch.distributed.broadcast(piece, src=0)
        if copy is not None:
            with open(copy, "ab") as file:
                file.write(piece.cpu().numpy().tobytes())

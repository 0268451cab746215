"""A folder: which files in it are data, which split each belongs to, and class folders of pictures.

Hidden and system files are not data. Links are followed to files inside the folder only.
"""

import fnmatch
import os
import re
from collections.abc import Iterator

import numpy as np

from hfft.messages import InputError, announce, warn
from hfft.reading.source import File, Source, cut, plural

IMAGES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".avif",
    ".jp2",
)
NOT_DATA = (".*", "Thumbs.db", "desktop.ini", "__MACOSX", "README*", "LICENSE*", "LICENCE*")
SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")


def is_data(name: str) -> bool:
    """Whether a file or folder name is data: neither hidden nor the system's nor a read-me."""
    return not any(fnmatch.fnmatch(name.lower(), pattern.lower()) for pattern in NOT_DATA)


def is_image(name: str) -> bool:
    """Whether the ending is a picture's."""
    return name.lower().endswith(IMAGES)


def split_word(name: str) -> str | None:
    """The split that a name says: "Train" -> train, "train-00000-of-00002" -> train, "a_dev" -> dev."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS]
    return {"training": "train", "testing": "test"}.get(words[0], words[0]) if len(set(words)) == 1 else None


def walk(root: str) -> Iterator[str]:
    """Relative paths of all data files below `root`, sorted; warns of broken links, refuses those that lead out."""
    real_root = os.path.realpath(root)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if is_data(name))
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                place = os.path.relpath(os.path.join(folder, name), root)
                raise InputError(f"{place}: is a link to a folder, which is not followed; put the folder itself there")
        for name in sorted(filter(is_data, files)):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path):
                if not os.path.exists(path):
                    warn(f"{relative}: a broken link, not read")
                    continue
                if not inside(real_root, path):
                    raise InputError(
                        f"{relative}: is a link to a file outside the data's folder; put the file itself there"
                    )
            if os.path.isfile(path):
                yield relative
            else:
                warn(f"{relative}: neither a file nor a folder, not read")


def inside(real_root: str, path: str) -> bool:
    """Whether a path, links resolved, lies below a folder."""
    return os.path.commonpath([real_root, os.path.realpath(path)]) == real_root


def by_split(files: list[str], where: str) -> dict[str, list[str]]:
    """Files of rows by the split that their name, or else their folder, says; a single file is "train"."""
    found: dict[str, list[str]] = {}
    unnamed = []
    for file in files:
        folder, name = os.path.split(file)
        word = split_word(os.path.splitext(name)[0]) or split_word(os.path.basename(folder))
        if word:
            found.setdefault(word, []).append(file)
        else:
            unnamed.append(file)
    if not found and len(files) == 1:
        return {"train": files}
    if not found:
        listed = ", ".join(sorted(files)[:8])
        raise InputError(f"{where}: which file is which split? {listed}; write data.path: {{train: …, eval: …}}")
    for file in unnamed:
        warn(f"{file}: not read, its name says no split (train, test, val …)")
    for split, several in found.items():
        endings = {os.path.splitext(file)[1].lower() for file in several}
        if len(endings) > 1:
            listed = ", ".join(several)
            raise InputError(f"{where}: split '{split}' is there in several forms ({listed}); name one in data.path")
    return found


def class_folders(root: str, files: list[str], where: str, named: tuple[str, ...]) -> dict[str, Source]:
    """Class folders of pictures, with or without split folders; `files` as `walk` gave them;
    `named` are the splits that the recipe names.
    """
    pictures = [file for file in files if is_image(file)]
    others = [file for file in files if not is_image(file)]
    if not pictures:
        raise InputError(f"{where}: no pictures are in it; give a folder train/<class>/<picture>.jpg")
    if others:
        warn(f"{where}: {plural(len(others), 'file')} without a picture's ending not read ({', '.join(others[:3])})")
    tops = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and is_data(entry.name))
    splits = split_folders(tops, named)
    stray = sorted({file.split(os.sep)[0] for file in pictures} - set(splits)) if splits else []
    if stray:
        warn(f"{where}: not read, for beside split folders these are no splits: {', '.join(stray[:8])}")
    if not splits:
        return {"train": one_split(root, "", pictures, where)}
    return {
        splits[top]: one_split(root, top, [file for file in pictures if file.startswith(top + os.sep)], where)
        for top in splits
    }


def split_folders(tops: list[str], named: tuple[str, ...]) -> dict[str, str]:
    """Folder -> split, or {} when the folders are classes.

    They are splits when one of them is "train" or named in the recipe, or when all are split words.
    """
    words = {
        top: word
        for top in tops
        if (word := top if top in named else (split_word(top) if top.lower() in SPLITS else None))
    }
    are_splits = "train" in words.values() or any(top in named for top in tops) or (tops and len(words) == len(tops))
    if not are_splits:
        return {}
    if len(set(words.values())) < len(words):
        raise InputError(f"folders {', '.join(words)}: two of them are the same split; keep one of each")
    return words


def one_split(root: str, top: str, pictures: list[str], where: str) -> Source:
    """The pictures of one split, each labelled with its folder's path below the split."""
    base, name = os.path.join(root, top), os.path.join(where, top).rstrip(os.sep)
    labels = [
        os.path.dirname(os.path.relpath(os.path.join(root, file), base)).replace(os.sep, "/") for file in pictures
    ]
    loose = [file for file, label in zip(pictures, labels, strict=True) if not label]
    if loose and len(loose) == len(pictures):
        raise InputError(
            f"{name}: {plural(len(loose), 'picture')} but no class folders; "
            "sort them into <class>/<picture>.jpg, or give a csv with the columns image and label"
        )
    if loose:
        raise InputError(*cut([f"{file}: lies in no class folder; move it into one" for file in loose]))
    if any("/" in label for label in labels):
        example = next(label for label in labels if "/" in label)
        announce(f"{name}: nested class folders, a class is its whole path ('{example}')")
    warn_of_empty(base, set(labels), name)
    masks = {"images", "masks", "annotations", "labels"} & {label.lower() for label in labels}
    if len(masks) > 1:
        found = " and ".join(sorted(masks))
        warn(f"{name}: {found} are read as classes; this looks like another task's data")
    return pictures_source([os.path.join(os.path.abspath(root), file) for file in pictures], pictures, labels)


def warn_of_empty(base: str, labels: set[str], where: str) -> None:
    """Folders without pictures are classes that disappear: say so."""
    for folder, folders, _ in os.walk(base):
        folders[:] = sorted(filter(is_data, folders))
        label = os.path.relpath(folder, base).replace(os.sep, "/")
        if not folders and label != "." and label not in labels:
            warn(f"{os.path.join(where, label)}: an empty class folder, no class comes of it")


def pictures_source(paths: list[str], names: list[str], labels: list[str] | None = None) -> Source:
    """Picture files as rows: the path is kept, the bytes are read when they are needed."""
    import pyarrow as pa

    empty = pa.nulls(len(paths), pa.binary())
    image = pa.chunked_array([pa.StructArray.from_arrays([empty, pa.array(paths, pa.string())], ["bytes", "path"])])
    size = np.arange(len(paths))
    columns = {"image": image, **({"label": labels} if labels is not None else {})}
    return Source(columns, [File(name) for name in names], size, np.zeros_like(size), size)

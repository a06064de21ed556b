"""Which files a location names, and that none of them is there twice.

A folder means all files in it and in its folders. A pattern means what it matches, and folders that it matches mean
their files. Names that begin with "." or "_" are passed over in both: writers use them for notes of their own. Links
to files are followed; a link to a folder inside a folder is refused, because it may lead back, or to files that are
there already. Values in the names of folders (day=2023-01-05) are not read.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from protocol.errors import DataError

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv"}
NOTES = (".", "_")
CHUNK = 1 << 20
ENDS = 1 << 16


def find_files(location: str, base: Path) -> tuple[Path, ...]:
    """The files that a location names, sorted by path.

    Raises:
        DataError: nothing found, an empty file, a link that leads nowhere, a folder that may not be looked into, or a
            file that is neither Parquet nor CSV.
    """
    path = base / location
    try:
        found = [path] if path.exists() or path.is_symlink() else _matches(path)
        files = sorted({file for each in found for file in (_files_in(each) if each.is_dir() else [each])})
        for file in files:
            _check_file(file)
    except OSError as problem:
        raise DataError(
            f"cannot be looked at ({problem.strerror})",
            way_out="correct the location, or give this user the right to read it",
            source=problem.filename or path,
        ) from None
    if not files:
        raise DataError(
            "no files found",
            way_out="name a Parquet or CSV file, a folder, or a pattern such as 'queries/*.parquet'",
            source=path,
        )
    return tuple(files)


def kind_of(files: Sequence[Path], location: str) -> str:
    """Whether the files are "parquet" or "csv".

    Raises:
        DataError: they are both.
    """
    kinds = {_kind(file) for file in files}
    if len(kinds) != 1:
        raise DataError(
            "holds Parquet and CSV files", way_out="name one kind, with a pattern such as '*.parquet'", source=location
        )
    return str(kinds.pop())


def refuse_duplicates(files: Sequence[Path]) -> None:
    """Refuse two files of the same content: their rows would count twice.

    Files of one size are compared by their ends, and those with the same ends by a digest of the whole; so a terabyte
    of different files is not read here.

    Raises:
        DataError: two files are the same.
    """
    same = [list(files)]
    for key in (lambda file: file.stat().st_size, _digest_of_ends, _digest):
        same = [group for each in same for group in _groups(each, key)]
    for first, second, *_ in same:
        raise DataError(
            f"the same content as '{second.name}', so each of its rows would count twice",
            way_out="remove one of the two",
            source=first,
        )


def _matches(pattern: Path) -> list[Path]:
    """What a pattern matches. A folder on the way that may not be looked into would hide what it holds: it raises."""
    for path in (*reversed(pattern.parents), pattern):
        listed = glob.has_magic(path.name)
        for folder in glob.glob(str(path.parent), recursive=True):  # noqa: PTH207  a location may be absolute
            right = os.R_OK | os.X_OK if listed or path.parent.name == "**" else os.X_OK
            if Path(folder).is_dir() and not os.access(folder, right, effective_ids=True):
                raise _closed(Path(folder))
    matches = glob.glob(str(pattern), recursive=True)  # noqa: PTH207
    return [Path(match) for match in matches if not Path(match).name.startswith(NOTES)]


def _files_in(folder: Path) -> Iterable[Path]:
    def refuse(problem: OSError) -> NoReturn:
        raise _closed(Path(problem.filename))

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(NOTES))
        for name in folders:
            if (Path(where) / name).is_symlink():
                raise DataError(
                    "a link to a folder, which may lead to files that are named already",
                    way_out="name the folder it leads to",
                    source=Path(where) / name,
                )
        yield from (Path(where) / name for name in names if not name.startswith(NOTES))


def _closed(folder: Path) -> DataError:
    return DataError(
        "a folder that may not be looked into, and a part of the rows is no answer",
        way_out="give this user the right to read it, or name the folders that are meant",
        source=folder,
    )


def _check_file(file: Path) -> None:
    if not file.exists():
        raise DataError("a link that leads nowhere", way_out="repair or remove it", source=file)
    if not file.is_file():
        raise DataError("not a regular file", way_out="write the rows to a file first", source=file)
    if _kind(file) is None:
        raise DataError(
            f"neither Parquet nor CSV by its name; known are {', '.join(SUFFIXES)}",
            way_out="name the files that are meant with a pattern such as '*.parquet'",
            source=file,
        )
    if not os.access(file, os.R_OK):
        raise DataError("may not be read", way_out="give this user the right to read it", source=file)
    if file.stat().st_size == 0:
        raise DataError("an empty file", way_out="remove it, or look why it was not written", source=file)


def _kind(file: Path) -> str | None:
    name = file.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def _groups(files: Iterable[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """Groups of two or more files with one key."""
    groups: dict[Hashable, list[Path]] = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return [group for group in groups.values() if len(group) > 1]


def _digest_of_ends(file: Path) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(ENDS)
        stream.seek(-min(ENDS, file.stat().st_size), os.SEEK_END)
        return hashlib.blake2b(head + stream.read(ENDS)).digest()


def _digest(file: Path) -> bytes:
    digest = hashlib.blake2b()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.digest()

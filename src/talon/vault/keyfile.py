"""The key ring in a file. Written whole, to a new file that takes the old one's place: whoever reads meets one or the other."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from talon.domain.errors import Invalid, Unavailable
from talon.vault.envelope import Key
from talon.vault.ring import KEYS_MAX, RingKey, read_lines, to_lines

FILE_MAX_BYTES = 65_536
#: What tells one content of a file from another: time of change, inode, size.
_Seen = tuple[int, int, int]


class FileRing:
    """The keys of one file. Safe among processes that share it: who writes holds a lock on the file's directory.

    `owned` says whether Talon makes, rotates and drops its keys; otherwise it only reads.
    """

    def __init__(self, path: Path, *, owned: bool) -> None:
        self._path = Path(os.path.realpath(path))  # a link stays a link: what it names is replaced
        self.owned = owned
        self._read: tuple[_Seen | None, tuple[RingKey, ...]] = (None, ())  # one object: threads meet it whole

    @property
    def where(self) -> str:
        """The file."""
        return f"the key file {self._path}"

    def known(self) -> tuple[RingKey, ...]:
        """As last read."""
        return self._read[1]

    def current(self) -> tuple[RingKey, ...]:
        """Read again if the file has changed. None if there is no file; what was known stays known then.

        Raises `Invalid` for a file that others may read, that cannot be read, or that is no key file.
        """
        try:
            with _opened(self._path) as (file, seen):
                known = self._read
                if seen == known[0]:
                    return known[1]
                keys = read_lines(os.read(file, FILE_MAX_BYTES + 1), self.where)
                self._read = (seen, keys)
                return keys
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise Invalid("invalid", f"{self.where} cannot be read: {error.strerror}") from None

    def put_first(self, key: Key, only_if_empty: bool, now_ms: int) -> tuple[RingKey, ...]:
        """See `Ring`. Of two processes that make the first key at once, both get the one that was written."""
        with self._locked():
            keys = self.current()
            if not keys or not only_if_empty:
                if len(keys) >= KEYS_MAX:
                    raise Invalid(
                        "invalid", f"{self.where} has {len(keys)} keys already; old ones are dropped an hour after their time"
                    )
                retired = tuple(RingKey(old.key, now_ms if old.retired_at_ms is None else old.retired_at_ms) for old in keys)
                self._write((RingKey(key), *retired))
            return self.current()

    def drop(self, ids: frozenset[str]) -> None:
        """See `Ring`."""
        with self._locked():
            keys = self.current()
            kept = keys[:1] + tuple(one for one in keys[1:] if one.key.id not in ids)
            if kept != keys:
                self._write(kept)
                self.current()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Alone among those that write into the directory; a process that dies lets go."""
        if not self.owned:
            raise TypeError("the key file is somebody else's")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _cannot_write(self.where, error) from None
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _write(self, keys: tuple[RingKey, ...]) -> None:
        new = self._path.with_name(self._path.name + ".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                new.unlink()  # of one who died while writing it
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                data = to_lines(keys)
                while data:
                    data = data[os.write(file, data) :]
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(new, self._path)
            _sync(self._path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            raise _cannot_write(self.where, error) from None


@contextlib.contextmanager
def _opened(path: Path) -> Generator[tuple[int, _Seen]]:
    """The file, opened, with what tells it from another content. Raises `OSError`, and `Invalid` if others may read it."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        stat = os.fstat(file)
        if stat.st_mode & 0o077:
            raise Invalid(
                "invalid",
                f"the key file {path} can be read by others than its owner (mode {stat.st_mode & 0o777:o}): run `chmod 600 {path}`,"
                " and rotate the keys if somebody may have read it (`talon secret rotate-key`)",
            )
        if stat.st_size > FILE_MAX_BYTES:
            raise Invalid("invalid", f"{path} is no key file: {stat.st_size} bytes, at most {FILE_MAX_BYTES}")
        yield file, (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    finally:
        os.close(file)


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _cannot_write(where: str, error: OSError) -> Invalid | Unavailable:
    words = f"{where} cannot be written: {error.strerror}"
    return Unavailable("storage_full", words) if error.errno in (errno.ENOSPC, errno.EDQUOT) else Invalid("invalid", words)

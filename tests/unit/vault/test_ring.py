"""The key ring: what is read, what is refused without showing it, and a file that two processes may make at once."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from talon.domain.errors import Invalid
from talon.vault.envelope import Key
from talon.vault.keyfile import FILE_MAX_BYTES, FileRing
from talon.vault.ring import KEYS_MAX, GivenRing, RingKey, find, parse_keys, read_lines, to_lines

MATERIAL = bytes(range(200, 232))
TEXT = base64.b64encode(MATERIAL).decode()
OTHER = base64.b64encode(bytes(range(32))).decode()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_come_in_every_usual_form_of_base64_the_newest_first() -> None:
    safe = base64.urlsafe_b64encode(MATERIAL).decode()
    assert {safe, TEXT} != {TEXT}
    for form in (TEXT, safe, TEXT.rstrip("="), f"  {TEXT} "):
        assert [key.material for key in parse_keys(form)] == [MATERIAL]
    assert [key.material for key in parse_keys(f"{TEXT}, {OTHER}")] == [MATERIAL, bytes(range(32))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (",", "is empty"),
        (base64.b64encode(MATERIAL[:31]).decode(), "key 1 of 1 has 31 bytes"),
        (f"{OTHER},{TEXT[:-5]}!", "key 2 of 2 is not base64"),
        (f"{TEXT},{TEXT}", "the same key twice"),
        (MATERIAL.hex() + "x", "key 1 of 1"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_keys(text)
    assert TEXT[:12] not in str(caught.value)


def test_a_file_of_keys_reads_as_it_was_written() -> None:
    keys = (RingKey(Key(MATERIAL)), RingKey(Key(bytes(32)), 17), RingKey(Key(bytes(range(32))), 0))
    assert read_lines(to_lines(keys), "it") == keys
    by_hand = read_lines(f"# mine\n{TEXT}\n\n{OTHER}  # the old one\n".encode(), "it")
    assert [one.key.material for one in by_hand] == [MATERIAL, bytes(range(32))]
    assert [one.retired_at_ms for one in by_hand] == [None, 0]
    assert find(by_hand, by_hand[1].key.id) == by_hand[1].key
    assert find(by_hand, "0" * 16) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{TEXT}\n{OTHER[:-4]}\n", "line 2 has 29 bytes|line 2 has 30 bytes"),
        (f"{TEXT}x y\n", "line 1"),
        (f"{TEXT} yesterday\n", "line 1 has something behind the key that is no time"),
        (f"{TEXT} 1 2\n", "line 1 has more than a key and a time"),
        (f"{TEXT}\n{TEXT}\n", "the same key stands there twice"),
        ("\x00\xff", "line 1 is not base64"),
    ],
)
def test_a_file_that_is_no_key_file_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        FileRing(write(tmp_path / "k", text), owned=True).current()
    assert TEXT[:12] not in caught.value.detail


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o611])
def test_a_file_that_others_may_read_or_write_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "k", TEXT, mode)
    with pytest.raises(Invalid, match=f"mode {mode:o}.*chmod 600 {path}"):
        FileRing(path, owned=True).current()


def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="at most 65536"):
        FileRing(write(tmp_path / "large", "#" * (FILE_MAX_BYTES + 1)), owned=True).current()
    (tmp_path / "directory").mkdir(mode=0o700)
    with pytest.raises(Invalid, match="cannot be read: Is a directory"):
        FileRing(tmp_path / "directory", owned=True).current()
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert FileRing(tmp_path / "pipe", owned=True).current() == (), "a pipe is not waited for"


def test_a_file_is_made_for_its_owner_only_and_whatever_died_before_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secrets.key"
    ring = FileRing(path, owned=True)
    assert ring.current() == ()
    path.parent.mkdir()
    write(path.with_name("secrets.key.new"), "half a ke", 0o644)
    old = os.umask(0)
    try:
        first = ring.put_first(Key.generate(), True, 5)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["secrets.key"]
    assert ring.put_first(Key.generate(), True, 6) == first, "there was one already"
    newest = Key.generate()
    assert ring.put_first(newest, False, 7) == (RingKey(newest), RingKey(first[0].key, 7))
    third = Key.generate()
    assert [one.retired_at_ms for one in ring.put_first(third, False, 9)] == [None, 9, 7]
    assert FileRing(path, owned=True).current() == ring.known()
    ring.drop(frozenset({first[0].key.id, third.id}))
    assert [one.key for one in ring.known()] == [third, newest], "the newest is never dropped"


def test_a_ring_that_is_full_takes_no_key_and_stays_as_it_is(tmp_path: Path) -> None:
    ring = FileRing(tmp_path / "k", owned=True)
    (tmp_path / "k").write_bytes(to_lines([RingKey(Key.generate(), at or None) for at in range(KEYS_MAX)]))
    (tmp_path / "k").chmod(0o600)
    before = ring.current()
    with pytest.raises(Invalid, match="100 keys already"):
        ring.put_first(Key.generate(), False, 1)
    assert ring.current() == before


def test_a_change_of_the_file_is_seen_and_its_absence_forgets_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "k", TEXT)
    ring = FileRing(path, owned=False)
    assert [one.key.material for one in ring.current()] == [MATERIAL]
    os.replace(write(tmp_path / "n", f"{OTHER}\n{TEXT}\n"), path)
    assert [one.key.material for one in ring.known()] == [MATERIAL]
    assert [one.key.material for one in ring.current()] == [bytes(range(32)), MATERIAL]
    path.unlink()
    assert ring.current() == ()
    assert len(ring.known()) == 2
    with pytest.raises(TypeError):
        ring.put_first(Key.generate(), True, 1)
    assert not path.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / "k", TEXT)
    (tmp_path / "k").symlink_to(tmp_path / "real" / "k")
    FileRing(tmp_path / "k", owned=True).put_first(Key.generate(), False, 1)
    assert (tmp_path / "k").is_symlink()
    assert len(read_lines((tmp_path / "real" / "k").read_bytes(), "it")) == 2


def test_given_keys_stay_as_they_are() -> None:
    ring = GivenRing(parse_keys(f"{TEXT},{OTHER}"), "the environment")
    assert ring.known() == ring.current()
    with pytest.raises(TypeError):
        ring.put_first(Key.generate(), False, 1)
    with pytest.raises(TypeError):
        ring.drop(frozenset())


MAKER = """
import sys
from pathlib import Path
from talon.vault.envelope import Key
from talon.vault.keyfile import FileRing
ring = FileRing(Path(sys.argv[1]), owned=True)
sys.stdin.readline()
print(ring.put_first(Key.generate(), True, 1)[-1].key.id, flush=True)
for _ in range(20):
    ring.put_first(Key.generate(), False, 1)
"""


def test_processes_that_make_a_key_at_once_agree_and_none_of_their_rotations_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for one in makers:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        ids = [one.communicate(timeout=60)[0].strip() for one in makers]
    finally:
        for one in makers:
            one.kill()
    assert len(set(ids)) == 1
    keys = FileRing(path, owned=True).current()
    assert len(keys) == 1 + 4 * 20
    assert keys[-1].key.id == ids[0]

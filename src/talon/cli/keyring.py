"""From the settings to the vault: which ring a process has, and that it can be read before anything is served."""

from __future__ import annotations

from talon.cli.errors import found_here
from talon.cli.load import SqliteAt, database_of
from talon.cli.settings import Settings
from talon.domain.errors import Invalid
from talon.domain.ids import Clock
from talon.observe import logs
from talon.store.protocols import Store
from talon.vault.keyfile import FileRing
from talon.vault.ring import MAKE_ONE, GivenRing, Ring, parse_keys
from talon.vault.vault import Vault

KEY_FILE = "secrets.key"


def ring_of(settings: Settings) -> Ring:
    """The ring that the settings name. Talon makes keys itself only where it is the database's one process: on SQLite.

    Raises `WrongUse` for a key file that others may read, that is no key file, or that is missing where none is made.
    """
    secrets, embedded = settings.secrets, isinstance(database_of(settings), SqliteAt)
    if secrets.key is not None:
        return GivenRing(parse_keys(secrets.key.get_secret_value()), "secrets.key (TALON_SECRETS_KEY)")
    if secrets.key_file is None and not embedded:
        return GivenRing((), "the settings")
    ring = FileRing(secrets.key_file or settings.data_dir / KEY_FILE, owned=embedded)
    with found_here():
        if not ring.current() and not embedded:
            raise Invalid(
                "invalid",
                f"secrets.key_file: {ring.where} has no key; on PostgreSQL, where all processes need the same, Talon makes none: "
                f"{MAKE_ONE} (then chmod 600)",
            )
    return ring


def open_vault(settings: Settings, store: Store, clock: Clock) -> Vault:
    """The vault of this process."""
    return Vault(store, ring_of(settings), clock, logs.hide)

"""The store on PostgreSQL: many gateways, many workers, one database."""

from talon.store.postgres.store import PostgresStore, open_store

__all__ = ["PostgresStore", "open_store"]

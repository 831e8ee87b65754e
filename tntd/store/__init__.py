"""All SQL: one database for each profile, one connection, one transaction a turn."""

from tntd.store.database import StoreFailed
from tntd.store.store import Store

__all__ = ["Store", "StoreFailed"]

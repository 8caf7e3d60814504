"""What every store must do, as inheritable pytest classes; a backend passes all of it, or it is no backend.

A backend's test module derives one `Test…` class from each suite and gives these fixtures:

- `store`: a `Store` on a migrated, empty database.
- `second`: another handle on the same database, with connections of its own; what another process would hold.
- `execute`: `async (sql) -> None`, runs one statement on the database from outside (to make rows older, to break the schema).
"""

from talon.store.conformance.access import AccessLogSuite, CredentialSuite
from talon.store.conformance.creation import CreationSuite
from talon.store.conformance.endings import EndingSuite, PlaceSuite
from talon.store.conformance.faults import FaultSuite
from talon.store.conformance.guards import GuardSuite
from talon.store.conformance.inbox import ApprovalSuite, DeleteSuite, InboxSuite, OfferSuite
from talon.store.conformance.journal import GaplessSuite, JournalSuite, RepeatSuite
from talon.store.conformance.keys import KeySuite
from talon.store.conformance.lists import RelationSuite, SelectorSuite
from talon.store.conformance.packs import LongJournalSuite, PackSuite
from talon.store.conformance.projections import ProjectionSuite
from talon.store.conformance.queue import HoldSuite, QueueSuite
from talon.store.conformance.reads import BlobSuite, FragmentSuite, ReadSuite
from talon.store.conformance.resources import ResourceSuite, RevisionSuite
from talon.store.conformance.schedules import AheadSuite, DueSuite, FiringSuite, ScheduleRowSuite
from talon.store.conformance.schema import SchemaSuite
from talon.store.conformance.secrets import SecretSuite
from talon.store.conformance.sessions import ListSuite, SessionSuite
from talon.store.conformance.shared import SharedSuite
from talon.store.conformance.strategies import CancelSuite, StrategySuite
from talon.store.conformance.takeover import TakeoverSuite
from talon.store.conformance.watches import WatchSuite

__all__ = [
    "AccessLogSuite",
    "AheadSuite",
    "ApprovalSuite",
    "BlobSuite",
    "CancelSuite",
    "CreationSuite",
    "CredentialSuite",
    "DeleteSuite",
    "DueSuite",
    "EndingSuite",
    "FaultSuite",
    "FiringSuite",
    "FragmentSuite",
    "GaplessSuite",
    "GuardSuite",
    "HoldSuite",
    "InboxSuite",
    "JournalSuite",
    "KeySuite",
    "ListSuite",
    "LongJournalSuite",
    "OfferSuite",
    "PackSuite",
    "PlaceSuite",
    "ProjectionSuite",
    "QueueSuite",
    "ReadSuite",
    "RelationSuite",
    "RepeatSuite",
    "ResourceSuite",
    "RevisionSuite",
    "ScheduleRowSuite",
    "SchemaSuite",
    "SecretSuite",
    "SelectorSuite",
    "SessionSuite",
    "SharedSuite",
    "StrategySuite",
    "TakeoverSuite",
    "WatchSuite",
]

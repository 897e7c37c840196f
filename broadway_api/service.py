"""What Broadway does: the use cases over one store, which they alone call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from broadway_api.access import Access
from broadway_api.assignments import Assignments
from broadway_api.clock import utc_now
from broadway_api.cluster_tokens import ClusterTokens
from broadway_api.errors import StoreUnavailable
from broadway_api.events import WakeUps
from broadway_api.fleet import Fleet
from broadway_api.health import Health
from broadway_api.known_runs import KnownRuns
from broadway_api.live_output import LiveOutput
from broadway_api.metrics import Metrics
from broadway_api.monitoring import Monitoring
from broadway_api.named_workers import NamedWorkers
from broadway_api.outbox import Outbox
from broadway_api.policy import Policy
from broadway_api.runs import Runs
from broadway_api.secret_box import SecretBox
from broadway_api.sessions import Sessions
from broadway_api.settling import Settler
from broadway_api.store.port import Store
from broadway_api.tenancy import Tenancy
from broadway_api.vault import Vault
from broadway_api.views import Views
from broadway_api.waiting import Waiting


class Service:
    """The use cases by who asks for them, and what they share. Workers' clocks decide nothing."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        secret_box: SecretBox,
        cluster_tokens: ClusterTokens,
        *,
        clock: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.policy = policy
        self.vault = Vault(store, secret_box, clock)
        self.wake_ups = WakeUps()
        self.settler = Settler(store, self.wake_ups, clock, on_end=outbox.run_ended if outbox else None)
        self._health = Health(store)
        self._clock = clock
        self.access = Access(store, cluster_tokens, clock)
        self.sessions = Sessions(self.access, secret_box, clock)
        self.tenancy = Tenancy(store, self.access, clock)
        self.waiting = Waiting(store, policy, now=clock)
        known = KnownRuns(store)
        self.views = Views(store, known=known, waiting=self.waiting, wake_ups=self.wake_ups)
        self.runs = Runs(
            store,
            policy,
            known=known,
            vault=self.vault,
            settler=self.settler,
            wake_ups=self.wake_ups,
            access=self.access,
            waiting=self.waiting,
            now=clock,
        )
        self.fleet = Fleet(
            store, policy, known=known, vault=self.vault, settler=self.settler, wake_ups=self.wake_ups, now=clock
        )
        metrics = metrics or Metrics()
        self.monitoring = Monitoring(store, metrics, self.fleet.workers, clock)
        self.live_output = LiveOutput(
            store, known=known, wake_ups=self.wake_ups, metrics=metrics, check_owner=self.fleet.check_owner
        )
        self.named_workers = NamedWorkers(store, self.fleet, policy, now=clock)
        self.assignments = Assignments(store, self.runs, self.waiting, policy, now=clock)

    def now(self) -> datetime:
        """The time by which leases are judged."""
        return self._clock()

    async def ping(self) -> None:
        """Raises StoreUnavailable."""
        await self._health.check()

    async def check_ready(self) -> None:
        """Raise StoreUnavailable if new requests had better go to another process."""
        if self.wake_ups.closed:
            raise StoreUnavailable("this API process is stopping")
        await self.ping()

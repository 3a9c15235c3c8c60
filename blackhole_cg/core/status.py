"""What is known of one service between two events."""

from __future__ import annotations

from dataclasses import dataclass

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.restart import NO_HISTORY, RestartHistory
from blackhole_cg.core.words import LIVE_STATES, Desired, Health, Reason, State


@dataclass(frozen=True, slots=True)
class LastExit:
    """How the latest finished run ended. `at` is monotonic seconds."""

    run_id: int
    status: ExitStatus
    reason: Reason
    at: float


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """All that the machine knows of a service."""

    state: State = State.STOPPED
    desired: Desired = Desired.DOWN
    run_id: int = 0
    pid: int | None = None
    cause: Reason = Reason.OPERATOR  # why the service is where it is
    detail: str = ""
    ending: Reason | None = None  # why we are ending the current run; None: we are not
    history: RestartHistory = NO_HISTORY
    restarts: int = 0  # automatic restarts since the first start or the last reset
    started_at: float | None = None
    restart_at: float | None = None
    health: Health = Health.UNKNOWN
    last_exit: LastExit | None = None
    last_error: str | None = None
    replaces: bool = False  # the next run is to follow one that was ended for it, and has not begun yet

    @property
    def holds_sockets(self) -> bool:
        """Whether what was bound for the service stays bound: while it runs, and while it is wanted to.

        Between two runs, and after restarting was given up, whoever connects waits for the next run. After
        a stop, or once the service is done, whoever connects is to be refused at once.
        """
        wanted = self.desired is Desired.UP and self.state is not State.COMPLETED
        return wanted or self.state in LIVE_STATES

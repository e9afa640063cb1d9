"""One pod: a sidecar and an app, in the right order.  Pure: what happened and `now` in, what to do out.

    CREATED --tick--> SIDECAR --sidecar ready--> APP --delete--> DRAINING --drain over--> INFORMING --callers know-->
                         |                                          ^          STOPPING_APP --app ended--> STOPPING_SIDECAR
                         `------------------- delete --------------'                                            --> GONE

    SIDECAR   the sidecar starts; the app waits until it answers 200 on /ready
    APP       both run; each is restarted on its own, with back-off
    DRAINING  the endpoint is marked terminating; callers learn it before the app stops listening
    INFORMING they are asked whether they have: a control plane that is away, or a machine that is too busy, tells them late.
              Not for ever (`INFORM_S`), and not once the app serves nobody any more
A pod without a sidecar goes CREATED -> APP.  The gateway has a sidecar only: its app is None.
Its status is written as Kubernetes writes it (`status`), by podstatus.py.
"""

from __future__ import annotations

import enum

from control.runtime.container import Action, AskCallers, Container, Note, Phase

# A control plane that was killed is back, and has told everybody, in some seconds (2 to 5 where the machine is busy).
INFORM_S = 10.0
_ASK_AGAIN_S = 0.25


class Stage(enum.Enum):
    CREATED = "created"
    SIDECAR = "sidecar"
    APP = "app"
    DRAINING = "draining"
    INFORMING = "informing"
    STOPPING_APP = "stopping app"
    STOPPING_SIDECAR = "stopping sidecar"
    GONE = "gone"


_MOVES = {
    Stage.CREATED: {Stage.SIDECAR, Stage.APP, Stage.GONE},
    Stage.SIDECAR: {Stage.APP, Stage.DRAINING},
    Stage.APP: {Stage.DRAINING},
    Stage.DRAINING: {Stage.INFORMING, Stage.STOPPING_APP},
    Stage.INFORMING: {Stage.STOPPING_APP},
    Stage.STOPPING_APP: {Stage.STOPPING_SIDECAR},
    Stage.STOPPING_SIDECAR: {Stage.GONE},
    Stage.GONE: set(),
}


class IllegalMove(RuntimeError):
    """A pod cannot go from one stage to the other: a mistake of ours."""


class PodMachine:
    """Drive it with `tick` (at `due_at`), after every call to one of its containers, and `delete`."""

    def __init__(
        self,
        app: Container | None,
        sidecar: Container | None,
        *,
        created: float,
        drain: float = 1.0,
        sidecar_grace: float = 10.0,
    ) -> None:
        if app is None and sidecar is None:
            raise ValueError("a pod has an app or a sidecar")
        self.app = app
        self.sidecar = sidecar
        self.stage = Stage.CREATED
        self.created = created
        self.deleted_at: float | None = None
        self.grace = app.grace if app else sidecar_grace
        self.drain = drain  # seconds between "terminating" and SIGTERM
        self.sidecar_grace = sidecar_grace  # seconds the sidecar has for its own drain
        self.ask_at: float | None = None  # while INFORMING: when to ask (again); None: the answer is on its way
        self.asked = 0  # times
        self.informed = False
        self.ready_since: float | None = None
        self.changed_at: dict[str, float] = {}  # condition -> when it last changed, for podstatus

    @property
    def containers(self) -> list[Container]:
        return [container for container in (self.app, self.sidecar) if container is not None]

    @property
    def ready(self) -> bool:
        """All its containers are fit for traffic, and it is to stay."""
        return self.serving and self.deleted_at is None

    @property
    def serving(self) -> bool:
        """All its containers are fit for traffic (also while terminating)."""
        return all(container.ready for container in self.containers)

    @property
    def finished(self) -> bool:
        """The app ended and will not be started again (restartPolicy)."""
        return self.app is not None and self.app.phase is Phase.ENDED and self.deleted_at is None

    @property
    def state(self) -> tuple[object, ...]:
        """All that its status is made of: equal states, equal status."""
        return (self.stage, self.deleted_at, *(container.state for container in self.containers))

    def delete(self, now: float, *, drain: float | None = None, grace: float | None = None) -> list[Action]:
        """End it; again with less patience shortens what is left."""
        if drain is not None:
            self.drain = drain
        if grace is not None:
            self.grace = grace
        if self.deleted_at is None:
            self.deleted_at = now
            if self.stage is Stage.CREATED:
                self._move(Stage.GONE)
            elif self.stage is not Stage.GONE:
                self._move(Stage.DRAINING)
        if grace is not None:
            self.sidecar_grace = min(self.sidecar_grace, grace)
            for container in self.containers:
                if container.phase is Phase.STOPPING:
                    container.stop(now, grace)
        return self.tick(now)

    def callers_know(self, yes: bool, now: float) -> list[Action]:
        """The answer to `AskCallers`; too late it is ignored."""
        if yes:
            self.informed = True
        else:
            self.ask_at = now + _ASK_AGAIN_S
        return self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """Everything that can happen now, until nothing more does."""
        actions: list[Action] = []
        while True:
            step = self._step(now)
            if step is None:
                break
            actions += step
        if self.stage is Stage.INFORMING and self.ask_at is not None and now >= self.ask_at:
            self.ask_at = None
            self.asked += 1
            actions.append(AskCallers())
        for container in self.containers:
            actions += container.tick(now)
        if self.serving:
            self.ready_since = now if self.ready_since is None else self.ready_since
        else:
            self.ready_since = None
        return actions

    def due_at(self) -> float | None:
        """When to call `tick` if nothing happens before."""
        times = [container.due_at() for container in self.containers if not self._held(container)]
        if self.stage is Stage.DRAINING and self.deleted_at is not None:
            times.append(self.deleted_at + self.drain)
        if self.stage is Stage.INFORMING and self.deleted_at is not None:
            times += [self.ask_at, self._inform_until(self.deleted_at)]
        if self.stage is Stage.CREATED:
            times.append(self.created)
        return min((time for time in times if time is not None), default=None)

    def _held(self, container: Container) -> bool:
        """Not to be started: it waits for something else than time."""
        return container.phase is Phase.WAITING and (
            self.deleted_at is not None or (container is self.app and self.stage in (Stage.CREATED, Stage.SIDECAR))
        )

    def _step(self, now: float) -> list[Action] | None:
        """One transition, or a start that is due; None if there is none."""
        app, sidecar = self.app, self.sidecar
        if self.stage is Stage.CREATED:
            self._move(Stage.SIDECAR if sidecar else Stage.APP)
            for container in self.containers:
                container.retry_at = now if container.retry_at is None else container.retry_at
            return []
        if self.stage is Stage.SIDECAR and sidecar is not None and sidecar.ready:
            self._move(Stage.APP)
            return [Note("Normal", "SidecarReady", "the sidecar is ready; the app may start")] if app else []
        if self.stage is Stage.DRAINING and self.deleted_at is not None:
            if now < self.deleted_at + self.drain and self.serving:
                return None
            if self.drain and self.serving:
                self._move(Stage.INFORMING)
                self.ask_at = now
                return []
            return self._stop_app(self.deleted_at, now)
        if self.stage is Stage.INFORMING and self.deleted_at is not None:
            if self.serving and self.drain and not self.informed and now < self._inform_until(self.deleted_at):
                return None
            return self._stop_app(self.deleted_at, now)
        if self.stage is Stage.STOPPING_APP and (app is None or app.phase is Phase.ENDED):
            self._move(Stage.STOPPING_SIDECAR)
            return sidecar.stop(now, self.sidecar_grace) if sidecar else []
        if self.stage is Stage.STOPPING_SIDECAR and (sidecar is None or sidecar.phase is Phase.ENDED):
            self._move(Stage.GONE)
            return []
        for container in self.containers:
            due = container.retry_at
            if container.phase is Phase.WAITING and due is not None and now >= due and not self._held(container):
                return container.start(now)
        return None

    def _inform_until(self, deleted_at: float) -> float:
        """Of a short grace the app has half."""
        return deleted_at + max(self.drain, min(self.drain + INFORM_S, self.grace / 2))

    def _stop_app(self, deleted_at: float, now: float) -> list[Action]:
        self._move(Stage.STOPPING_APP)
        return self.app.stop(now, max(0.0, deleted_at + self.grace - now)) if self.app else []

    def _move(self, stage: Stage) -> None:
        if stage not in _MOVES[self.stage]:
            raise IllegalMove(f"pod: {self.stage.value} -> {stage.value}")
        self.stage = stage

"""Pods' identity tokens: a token is good for one certificate, and a pod's file always holds an unused one, as a
kubelet's projected token does.

    pod is made -> written      every second: burnt, or half its life over? -> written anew      pod is gone -> withdrawn

Burning is a rename in the directory of tokens, so one stat of that tells whether the files are worth reading.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable

from control.runtime.layout import Layout
from control.runtime.troubles import Troubles
from control.runtime.worker import PodWorker
from control.serve import tokens

_INTERVAL = 1.0  # seconds between looks at the directory
_FULL = 30.0  # seconds between looks at every file: a tenth of half a token's life
_RACY = 1_000_000_000  # ns; a directory that changed so lately may change again without a newer time stamp


class PodTokens:
    def __init__(self, layout: Layout, troubles: Troubles) -> None:
        self._directory = layout.tokens
        self._troubles = troubles

    async def keep(self, workers: Callable[[], Iterable[PodWorker]]) -> None:
        """For ever: the files of all these pods hold an unused token."""
        looked, full_at = 0, 0.0
        while True:
            await asyncio.sleep(_INTERVAL)
            changed, now = self._changed_ns(), time.time()
            if looked - changed > _RACY and now < full_at:
                continue
            looked = time.time_ns()
            for worker in list(workers()):
                if not worker.gone:
                    self.refresh(worker)
            if now >= full_at:
                full_at = now + _FULL
                tokens.sweep(self._directory, now)

    def _changed_ns(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns
        except OSError:  # not there yet; or the files say what is wrong
            return time.time_ns()

    def refresh(self, worker: PodWorker) -> None:
        """Have an unused token in the pod's file; a pod without a sidecar needs none."""
        if worker.machine.sidecar is None:
            return
        pod = worker.identity
        try:
            tokens.refresh_token_if_burned(
                *(self._directory, worker.token_file, pod.namespace, pod.service_account, pod.name),
                *(tokens.TTL, time.time()),
            )
        except OSError as error:
            self._troubles.tell(f"token {pod}", f"cannot write the identity token of pod {pod}: {error.strerror}")
        else:
            self._troubles.over(f"token {pod}")

    def withdraw(self, worker: PodWorker) -> None:
        if worker.machine.sidecar is not None:
            tokens.withdraw_token(self._directory, worker.token_file)

"""Shards of a stage on a Ray cluster, through Ray Data (`engine: ray`); the local engine needs none of this.

A shard is a part of a stage's work that a worker writes under a name of its own, so a lost worker costs one shard. Ray
Data keeps the pool of workers, and Ray gives a lost worker's shard to another. A shard that raised an error waits until
the others are done, so that a bad node cannot use up its tries.
"""

import os
import pickle
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pcclip.config import Ray, root
from pcclip.errors import PcclipError, one_line
from pcclip.runs.progress import Meter, say

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}  # workers have the usual priority; Ray's default lets all other processes go first
_STARTS = 3  # attempts to start a cluster here: on a busy machine Ray's processes time out after 15 s
_AT_ONCE = 2_000  # shards given to Ray Data at once; its own cost grows with their number


@contextmanager
def cluster(settings: Ray, log_to_driver: bool = False) -> Iterator[None]:
    """A Ray cluster while the block runs: the one this process is connected to, one by address, or one started here.

    Raises PcclipError when Ray is not installed or there is no cluster at the address.
    """
    if find_spec("ray") is None:
        raise PcclipError("engine = ray needs Ray: `pip install 'pcclip[ray]'`, or set engine: local")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    started = time.monotonic()
    _start(settings, log_to_driver)
    try:
        resources, seconds = ray.cluster_resources(), time.monotonic() - started
        say(
            f"Ray: {f'at {settings.address}' if settings.address else 'started here'} in {seconds:.1f} s, "
            f"{len(ray.nodes())} nodes, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
        )
        yield
    finally:
        ray.shutdown()


def _start(settings: Ray, log_to_driver: bool) -> None:
    import logging

    import ray

    options: dict[str, Any] = {}
    if not settings.address:
        options = {
            "num_cpus": settings.workers * settings.cpus,
            "include_dashboard": False,
            "object_store_memory": int(settings.object_store * 1e9),
        }
    for attempts_left in reversed(range(1 if settings.address else _STARTS)):
        try:
            ray.init(settings.address or "local", log_to_driver=log_to_driver, logging_level=logging.ERROR, **options)
            return
        except Exception as error:  # Ray documents no class, and raises Exception itself too
            ray.shutdown()
            if not attempts_left:
                where = "Ray does not start here"
                if settings.address:
                    where = f"ray.address = {settings.address}: no cluster there"
                raise PcclipError(
                    f"{where} ({one_line(error)}); `ray start --head` starts one by hand, and engine: local needs none"
                ) from None


def over_shards(
    names: Sequence[str],
    shard_of: Callable[[str], object],
    make_worker: Callable[[], Callable[[str, Any], None]],
    settings: Ray,
    noun: str,
) -> None:
    """Have workers in the processes of a Ray cluster called with every name and its shard.

    Args:
        names: of the shards, all different.
        shard_of: makes the shard of a name, which is sent to a worker; called when it is that shard's turn.
        make_worker: called once in each process, it returns the worker; picklable.
        settings: of the cluster; `gpus` is what each worker needs.
        noun: the contents of the shards, for progress and messages.

    Raises:
        PcclipError: some shard failed for good; all the others are done then, and kept. A PcclipError of a worker is
            final; after any other error, and after a lost worker, a shard has `settings.retries` more tries.
    """
    import ray.exceptions

    waiting, tries, failed = deque(names), Counter[str](), dict[str, str]()
    done, processes = 0, set[str]()
    meter = Meter(len(names), f"{noun}, shards")
    with cluster(settings):
        if settings.address is None and ray.cluster_resources().get("GPU", 0) < settings.gpus:
            raise PcclipError(
                f"ray.gpus = {settings.gpus:g}: this machine has too few; lower it, or give ray.address of a cluster"
            )
        started = time.monotonic()
        while waiting:
            batch = [waiting.popleft() for _ in range(min(len(waiting), _AT_ONCE))]
            rows = [{"name": name, "shard": pickle.dumps(shard_of(name))} for name in batch]
            lost = dict.fromkeys(batch, f"its worker was lost {settings.retries + 1} times: out of memory?")
            try:
                for report in _reports(rows, (make_worker, str(root())), settings):
                    name, error = report["name"], report["error"]
                    lost.pop(name, None)
                    tries[name] += 1
                    if not error:
                        meter.add()
                        done += 1
                        processes.add(report["process"])
                    elif report["final"] or tries[name] > settings.retries:
                        failed[name] = error
                    else:
                        waiting.append(name)
            except ray.exceptions.RayError as error:
                raise PcclipError(
                    f"{noun}: Ray gave up ({one_line(error)}); run again: {done} of {len(names)} shards are kept"
                ) from error
            failed |= lost
        seconds = time.monotonic() - started
    say(f"{noun}: {done} shards by {len(processes)} workers in {seconds:.1f} s")
    if failed:
        name, reason = next(iter(failed.items()))
        raise PcclipError(
            f"{noun}: {len(failed)} of {len(names)} shards failed for good, the first {name}: {reason}; "
            "the others are kept, mend that and run again"
        )


def _reports(rows: list[dict], arguments: tuple, settings: Ray) -> Iterator[dict]:
    """The workers' report on each shard, as they come in; none on a shard whose worker was lost too often.

    One shard a block and one block a worker, so that a lost worker takes nothing else with it.
    """
    import logging
    import warnings

    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # `over_shards` reports failures, in one line
    context = DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    workers = min(settings.workers, len(rows))
    pool = ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1)
    with DataContext.current(context):
        with warnings.catch_warnings(action="ignore"):  # Ray 2.60 warns of the only way to set how often to try
            done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Caller,  # type: ignore[arg-type]  # Ray accepts a class, its annotation does not
                fn_constructor_args=arguments,
                compute=pool,
                num_cpus=settings.cpus,
                num_gpus=settings.gpus or None,
                max_restarts=-1,
                max_task_retries=settings.retries,
            )
        yield from done.iter_rows()


class _Caller:
    """Calls the worker in a process of the pool and reports whether each call failed."""

    def __init__(self, make_worker: Callable, folder: str):
        if Path(folder).is_dir():
            os.environ.setdefault(
                "PCCLIP_ROOT", folder
            )  # so that relative paths in parameters mean the same on every node
        self._make_worker = make_worker
        self._worker: Callable[[str, Any], None] | None = None

    def __call__(self, row: dict) -> dict:
        process = f"{socket.gethostname()} {os.getpid()}"
        report = {"name": row["name"], "error": "", "final": False, "process": process}
        try:
            if self._worker is None:
                self._worker = self._make_worker()
            self._worker(row["name"], pickle.loads(row["shard"]))
        except PcclipError as error:
            report |= {"error": str(error), "final": self._worker is not None}  # it may start on another node
        except Exception as error:  # whatever a shard can raise: it is tried again, and reported
            report["error"] = f"{type(error).__name__}: {one_line(error)}"
        return report

"""engine: ray, the shards of a stage on a Ray cluster through Ray Data; the local engine needs none of this.

A shard is whatever a worker writes under a name of its own; a worker that is lost costs the shard it was at. Ray Data
keeps the pool of workers, and Ray gives a lost one's shard to another; a shard that raised an error waits until the
others are done, so that a bad node cannot use up its tries.
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

from pcclip.config import Ray, root
from pcclip.errors import PcclipError
from pcclip.runs.progress import Meter, say

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}  # by default everything else on the machine goes first
_STARTS = 3  # of a cluster here: on a busy machine Ray's own processes give each other up after 15 seconds
_AT_ONCE = 2_000  # shards that Ray Data is told of at once; its own cost grows with them


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
        have, seconds = ray.cluster_resources(), time.monotonic() - started
        say(
            f"Ray: {f'at {settings.address}' if settings.address else 'started here'} in {seconds:.1f} s, "
            f"{len(ray.nodes())} nodes, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs"
        )
        yield
    finally:
        ray.shutdown()


def _start(settings: Ray, log_to_driver: bool) -> None:
    import logging

    import ray

    here = (
        {}
        if settings.address
        else {
            "num_cpus": settings.workers * settings.cpus,
            "include_dashboard": False,
            "object_store_memory": int(settings.object_store * 1e9),
        }
    )
    for left in reversed(range(1 if settings.address else _STARTS)):
        try:
            ray.init(settings.address or "local", log_to_driver=log_to_driver, logging_level=logging.ERROR, **here)
            return
        except Exception as error:  # Ray raises what it likes here, Exception itself too
            ray.shutdown()
            if not left:
                where = (
                    f"ray.address = {settings.address}: no cluster there"
                    if settings.address
                    else ("Ray does not start here")
                )
                raise PcclipError(
                    f"{where} ({_line(error)}); `ray start --head` starts one by hand, and engine: local needs none"
                ) from None


def over_shards(
    names: Sequence[str],
    shard_of: Callable[[str], object],
    make_worker: Callable[[], Callable[[str, object], None]],
    settings: Ray,
    noun: str,
) -> None:
    """Have workers in the processes of a Ray cluster called with every name and its shard.

    Args:
        names: of the shards, each its own.
        shard_of: what the worker is sent for a name; it is called when it is that shard's turn.
        make_worker: called once in each process, it returns the worker; picklable.
        settings: of the cluster; `gpus` is what each worker needs.
        noun: what is in the shards, for progress and messages.

    Raises:
        PcclipError: some shard failed for good: all the others are done then, and kept. An error that says what to do
            is final; after any other, and after a lost worker, a shard has `settings.retries` more tries.
    """
    from ray.exceptions import RayError

    waiting, tries, failed, told = deque(names), Counter(), {}, []
    meter = Meter(len(names), f"{noun}, shards")
    with cluster(settings):
        _check_room(settings)
        started = time.monotonic()
        while waiting:
            wanted = [waiting.popleft() for _ in range(min(len(waiting), _AT_ONCE))]
            rows = [{"name": name, "shard": pickle.dumps(shard_of(name))} for name in wanted]
            lost = dict.fromkeys(wanted, f"its worker was lost {settings.retries + 1} times: out of memory?")
            try:
                for row in _done(rows, (make_worker, str(root())), settings):
                    name, error = row["name"], row["error"]
                    lost.pop(name, None)
                    tries[name] += 1
                    if not error:
                        meter.add()
                        told.append(row)
                    elif row["final"] or tries[name] > settings.retries:
                        failed[name] = error
                    else:
                        waiting.append(name)
            except RayError as error:
                raise PcclipError(
                    f"{noun}: Ray gave up ({_line(error)}); run again: {len(told)} of {len(names)} shards are kept"
                ) from error
            failed |= lost
        wall = time.monotonic() - started
    if told:
        say(_overhead(told, wall, noun))
    if failed:
        name, error = next(iter(failed.items()))
        raise PcclipError(
            f"{noun}: {len(failed)} of {len(names)} shards failed for good, the first {name}: {error}; "
            "the others are kept, mend that and run again"
        )


def _done(rows: list[dict], calling: tuple, settings: Ray) -> Iterator[dict]:
    """What the workers say of each shard, as they come in; nothing of one whose worker was lost too often.

    One shard a block and one block a worker: a lost worker takes nothing else with it.
    """
    import logging
    import warnings

    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told by `over_shards`, in one line
    context = DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    workers = min(settings.workers, len(rows))
    pool = ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1)
    with DataContext.current(context):
        with warnings.catch_warnings(action="ignore"):  # of 2.60, which has no other way to say how often to try
            done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Caller,
                fn_constructor_args=calling,
                compute=pool,
                num_cpus=settings.cpus,
                num_gpus=settings.gpus or None,
                max_restarts=-1,
                max_task_retries=settings.retries,
            )
        yield from done.iter_rows()


class _Caller:
    """In a process of the pool: the worker, and of each call whether it failed and how long it took."""

    def __init__(self, make_worker: Callable, folder: str):
        if Path(folder).is_dir():
            os.environ.setdefault("PCCLIP_ROOT", folder)  # paths of parameters mean the same everywhere
        self._make, self._worker, self._ended = make_worker, None, None

    def __call__(self, row: dict) -> dict:
        began = time.monotonic()
        told = {
            "name": row["name"],
            "error": "",
            "final": False,
            "process": f"{socket.gethostname()} {os.getpid()}",
            "gap": began - self._ended if self._ended else 0.0,
            "loading": 0.0,
        }
        try:
            if self._worker is None:
                self._worker = self._make()
                told["loading"] = time.monotonic() - began
            self._worker(row["name"], pickle.loads(row["shard"]))
        except PcclipError as error:
            told |= {"error": str(error), "final": self._worker is not None}  # another node's may start
        except Exception as error:  # whatever a shard can do: it is tried again, and then told
            told["error"] = f"{type(error).__name__}: {_line(error)}"
        self._ended = time.monotonic()
        return told | {"seconds": self._ended - began - told["loading"]}


def _check_room(settings: Ray) -> None:
    """Raises PcclipError when no node of a cluster that was started here has room for one worker."""
    import ray

    if settings.address is None and ray.cluster_resources().get("GPU", 0) < settings.gpus:
        raise PcclipError(
            f"ray.gpus = {settings.gpus:g}: this machine has too few; lower it, or give ray.address of a cluster"
        )


def _overhead(told: list[dict], wall: float, noun: str) -> str:
    """What the engine cost beside the work itself, from what each call told: one line."""
    gaps = [row["gap"] for row in told if row["gap"]]
    processes = {row["process"] for row in told}
    work, loading = sum(row["seconds"] for row in told), max(row["loading"] for row in told)
    idle = wall - sum(row["seconds"] + row["loading"] + row["gap"] for row in told) / len(processes)
    return (
        f"{noun}: {len(told)} shards by {len(processes)} workers in {wall:.1f} s, {work / len(told):.1f} s of work "
        f"a shard; Ray's share: {idle:.1f} s of starting and ending beside {loading:.1f} s of loading, and "
        f"{sum(gaps) / max(1, len(gaps)):.3f} s between two shards"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

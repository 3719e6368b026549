"""What the benchmarks share: runs in turn, peaks of this machine, memory, and how a result is printed."""

import json
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of one call, the GPU's work included."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(rounds: int, **runs: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each, one after the other, `rounds` times over: what else the machine does then meets them all."""
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(seconds_of(run))
    return found


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast, the median over the rounds."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def matrix_peak(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a large matrix product, the best of five."""
    side = 8192 if device.type == "cuda" else 1536
    one = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(seconds_of(lambda: one @ one) for _ in range(6))


def memory_peak(device: torch.device) -> float:
    """Bytes/s of adding up memory that no cache holds, the best of five."""
    one = torch.ones(1 << 28 if device.type == "cuda" else 1 << 26, device=device)
    return one.numel() * 4 / min(seconds_of(one.sum) for _ in range(6))


def peak_memory() -> float:
    """MiB of this process until now, and of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_status(key: str) -> int:
    """Bytes by Linux: VmRSS is what this process has, VmHWM the most it has had; getrusage would tell its parent's."""
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def show(result: dict, as_json: bool) -> None:
    """One line each, numbers to four digits, or one JSON object."""
    result = {name: _rounded(value) for name, value in result.items()}
    print(json.dumps(result) if as_json else "\n".join(f"{name}: {value}" for name, value in result.items()))


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value

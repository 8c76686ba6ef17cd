"""The machine: its processor or GPU, its cores, and the memory that was used."""

import os
import platform
from pathlib import Path

import psutil
import tensorflow as tf


def peak_memory_mb() -> float:
    """Measure the most memory this process has had resident so far, in MB (1e6 bytes)."""
    if platform.system() == "Windows":
        return psutil.Process().memory_info().peak_wset / 1e6
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


def peak_device_memory_mb() -> float | None:
    """Measure the most memory of the first GPU that was in use, in MB (1e6 bytes); None without a GPU."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6


def cores() -> int:
    """Count the processor cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def device() -> dict[str, str | int]:
    """Describe the machine: its processor or GPU, and the cores that training may use."""
    gpus = tf.config.list_physical_devices("GPU")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else _processor()
    available = cores()
    threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", available))
    return {"name": name, "cores": min(threads, available), "gpus": len(gpus), "system": platform.system()}


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def suits(precision: str) -> bool:
    """Whether this machine has instructions for a reduced precision; where that cannot be told, yes."""
    if tf.config.list_physical_devices("GPU"):
        return True
    return precision == "mixed_bfloat16" and _computes_bfloat16() is not False


def fastest_precision() -> str:
    """Name the precision to train in here: ``mixed_bfloat16`` where the processor is known to have it.

    On a GPU that depends on its age, so it is ``float32``.
    """
    gpu = bool(tf.config.list_physical_devices("GPU"))
    return "mixed_bfloat16" if not gpu and _computes_bfloat16() else "float32"


def _computes_bfloat16() -> bool | None:
    """Whether the processor has instructions for numbers of 16 bits; None where that cannot be told."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", " bf16"))

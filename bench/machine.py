"""What the timings were taken on. Imported by the scripts here; run it to see the answer."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu() -> str:
    """Model of the processor, as the operating system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


SETS = ("sse2", "avx", "avx2", "fma", "avx512f", "amx_bf16", "asimd")


def instruction_sets() -> list[str]:
    """Those of the vector instruction sets that matter here which the processor reports."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return []
    text = info.read_text()
    flags = next((s for s in text.splitlines() if s.startswith(("flags", "Features"))), "").split()
    return [name for name in SETS if name in flags]


def describe() -> dict:
    """Processor, cores, system and Python, for a JSON file or the head of a table."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "instruction sets": instruction_sets(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    for key, value in describe().items():
        print(f"{key}: {value}")

"""Time and memory of neighbourhoods and of the density metrics, by number of images.

    python tests/benchmark_neighbours.py --sizes 1000 5000 20000 50000 --what table

Each size runs in a process of its own, which collects features batch by batch, as a search and a test do, and
prints processor seconds and the peak of its memory beyond that of the imports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from lightning_gancompress.data.ledger import Ledger
from lightning_gancompress.density import density_coverage, nearest_neighbours, precision_recall

NEIGHBOURS, BATCH = 5, 8
WHAT = ("table", "coverage", "precision")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--what", choices=WHAT, default="table", help="a search's table, or a test's figures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--of", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def peak_mib() -> float:
    """Peak memory of this process; not ru_maxrss, which a child inherits."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def gathered(count: int, width: int, seed: int) -> torch.Tensor:
    """Features (N, F) on the sphere, from batches in the order of a loader."""
    generator = torch.Generator().manual_seed(seed)
    ledger = Ledger[str](torch.device("cpu"))
    for index in torch.arange(count).split(BATCH):
        features = torch.randn(len(index), width, generator=generator)
        ledger.add("a", index, len(index), {"features": torch.nn.functional.normalize(features, dim=1)})
    return ledger.gather("a")[1]["features"]


def measure(options: argparse.Namespace) -> None:
    """Print the seconds and MiB of one size."""
    nearest_neighbours(gathered(64, 8, 0), NEIGHBOURS)  # what is loaded at the first use
    before = peak_mib()
    features = gathered(options.of, options.features, 0)
    if options.what == "table":
        start = time.process_time()
        nearest_neighbours(features, NEIGHBOURS)
    else:
        samples = gathered(options.of, options.features, 1)
        start = time.process_time()
        (density_coverage if options.what == "coverage" else precision_recall)(features, samples, NEIGHBOURS)
    print(time.process_time() - start, peak_mib() - before)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.of:
        measure(options)
        return
    print("images   seconds   ratio   memory MiB   of which features")
    last: tuple[int, float] | None = None
    for size in options.sizes:
        command = [sys.executable, __file__, "--of", str(size), "--features", str(options.features)]
        command += ["--what", options.what, "--threads", str(options.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, memory = map(float, done.stdout.split())
        own = size * options.features / 2**18 * (1 if options.what == "table" else 2)
        ratio = f"{seconds / last[1]:7.1f}" if last else "       "
        print(f"{size:6d} {seconds:9.2f} {ratio} {memory:12.0f} {own:12.0f}")
        last = size, seconds


if __name__ == "__main__":
    main()

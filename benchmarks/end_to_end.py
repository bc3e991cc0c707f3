"""How often a caption finds its shot, from mp4 files to the first hit: mean and deviation over seeds.

    python benchmarks/end_to_end.py [--seeds 10] [--reels 20]

Folders of reels drawn from pictures that packages carry and, where it is there, from Flickr8k's test photos, indexed
from the files and asked for by one caption of each picture: what the floors in tests/test_end_to_end.py rest on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.test_end_to_end import FLICKR8K, flickr8k_captions, package_captions, package_folder, search_reels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--reels", type=int, default=20)
    arguments = parser.parse_args()
    sets = {"packages' pictures": (package_folder("skimage") / "data", package_captions(), 4)}
    if FLICKR8K.is_dir():
        sets["Flickr8k test photos"] = (FLICKR8K / "images", flickr8k_captions(), arguments.reels)
    for name, (pictures, captions, count) in sets.items():
        found = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found.append(search_reels(Path(folder), pictures, captions, count=count, seed=seed))
            print(f"{name}, seed {seed}: {found[-1]}", flush=True)
        for what in ("video", "shot"):
            shares = [getattr(one, what) for one in found]
            chance = statistics.mean(getattr(one, f"chance_{what}") for one in found)
            print(
                f"{name}: right {what} first {statistics.mean(shares):.3f} +- {statistics.stdev(shares):.3f} "
                f"(worst {min(shares):.3f}, chance {chance:.3f}) over {arguments.seeds} seeds"
            )


if __name__ == "__main__":
    main()

"""`python -m data.make_sample FOLDER [--seed N]`, from the root of the repository."""

import argparse
import sys
from pathlib import Path

from data import make_sample
from salema.files import SalemaError


def main(arguments: list[str] | None = None) -> int:
    """Write the sample; returns the exit status: 0, or 2 where the folder cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m data.make_sample",
        description="Write small synthetic data sets in the official layouts.",
    )
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0, help="other pictures and gaze (default: 0)")
    parsed = parser.parse_args(arguments)
    try:
        make_sample.write(parsed.folder, seed=parsed.seed)
    except SalemaError as error:
        print(f"make_sample: error: {error}", file=sys.stderr)
        return error.status
    print(parsed.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

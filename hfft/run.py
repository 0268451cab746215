"""accelerate launch hfft/run.py RECIPE [key=value ...]: `hfft train` as a script that launchers can start."""

import sys
from pathlib import Path

# A launcher puts hfft/ itself first on sys.path, where our files would shadow packages of the same name.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hfft.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

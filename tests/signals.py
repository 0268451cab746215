"""python tests/signals.py: forty signals at every place of a run, each of which ends it with 75 (`make signals`).

None may hang, leave a process behind, or cost a step: what goes on ends with bitwise the weights of the whole run.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import survival
from forks import Forks

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
ALONE = {
    "preparation": "hfft.batches:encoded 1 0",
    "before the first step": "hfft.trainer:Trainer._prepare_for_training 1 0",
    "a step": f"{survival.STEP} 3 0",
    "a save": "hfft.trainer:Trainer._save_rng_state 1 0",
    "an evaluation": f"{survival.EVAL} 2 0",
    "an export": "hfft.export.merge:merge 1 0",
}
TWO = {
    "a step of one": f"{survival.STEP} 3 1",
    "a step of both": f"{survival.STEP} 3 all",
    "a save": "hfft.trainer:Trainer._save_rng_state 1 1",
    "an evaluation": f"{survival.EVAL} 2 1",
}
CASES = [(place, where, name, 1) for place, where in ALONE.items() for name in NAMES]
CASES += [(place, where, name, 2) for place, where in TWO.items() for name in NAMES]


class Signals:
    """Runs of one process and of two, with LoRA and an export."""

    def __init__(self, forks: Forks, folder: Path):
        self.forks, self.folder, self.files = forks, folder, survival.files(folder)
        for processes in (1, 2):
            codes, said = self.run(folder / f"whole-{processes}", processes)
            assert codes == [0] * processes, said

    def run(self, place: Path, processes: int, *words: str, **env: str) -> tuple[list[int], list[str]]:
        file = survival.recipe(self.files, place, "text", lora=True, processes=processes)
        file.write_text(file.read_text() + "export: [merge]\n")
        return self.forks.run("train", file, *words, processes=processes, limit=120, **env)

    def one(self, place: str, where: str, name: str, processes: int) -> None:
        """Raises AssertionError where the signal does more or less than it should."""
        folder = self.folder / "signalled"
        shutil.rmtree(folder, ignore_errors=True)
        codes, said = self.run(folder, processes, SIGNAL=f"{name} {where}")
        text = "".join(said)
        assert codes == [75] * processes and "Traceback" not in text, (codes, said)
        assert text.count("hfft: stopped") == 1 and not self.forks.orphans(), said
        begun = place != "preparation"
        assert begun == (folder / "run").exists()
        codes, said = self.run(folder, processes, *(["--resume"] if begun else []))
        assert codes == [0] * processes, (codes, said)
        assert survival.equal(folder / "run", self.folder / f"whole-{processes}" / "run")
        assert (folder / "run" / "exports" / "merge" / "model.safetensors").is_file()


def main() -> None:
    """Print what became of each."""
    forks, folder, start = Forks(), Path(tempfile.mkdtemp()), time.monotonic()
    signals = Signals(forks, folder)
    for number, case in enumerate(CASES):
        signals.one(*case)
        print(f"{number + 1}: {case[2]} in {case[0]}, {case[3]} processes: 75, resumed", flush=True)
    print(f"{len(CASES)} signals, no hang, no process left, all resumed; {time.monotonic() - start:.0f} s")
    forks.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())

"""python tests/kills.py [200] [seed]: runs that are killed with -9 and go on by --resume until they end (`make kills`).

Half of the kills come at a random time, half while a checkpoint is saved or an old one deleted. Each run must end with
bitwise the weights of the one that nobody killed, and none may lose a step of a checkpoint that was whole.
"""

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import survival
from forks import Forks

from hfft import checkpoint

POINTS = ("save.weights", "save.manifest", "save.rename", "rotate")
CASES = [(False, 1), (True, 1), (False, 2), (True, 2)]  # (LoRA, processes)


class Kills:
    """Kills in turn over the four cases, from a seed."""

    def __init__(self, forks: Forks, folder: Path, seed: int = 0):
        self.forks, self.folder, self.draw = forks, folder, random.Random(seed)
        self.files = survival.files(folder)
        self.whole: dict[tuple[bool, int], float] = {}  # how long the run takes that nobody kills
        self.number = 0

    def run(self, place: Path, case: tuple[bool, int], *words: str, **env: str) -> tuple[list[int], str]:
        lora, processes = case
        beat = {"eval_steps": 1, "save_total_limit": 2, "num_train_epochs": 4, "dataloader_num_workers": 0}
        beat["ddp_timeout"] = 10  # a tenth of it is a heartbeat's pause, of which the survivors wait for some
        file = survival.recipe(self.files, place, "text", lora=lora, processes=processes, **beat)
        codes, said = self.forks.run("train", file, *words, processes=processes, **env)
        return codes, "".join(said)

    def one(self) -> str:
        """Kill a run, let it go on, compare; returns where it went on from. Raises AssertionError for what is lost."""
        case = CASES[self.number % len(CASES)]
        aimed = self.number // len(CASES) % 2 == 0
        self.number += 1
        whole, place = self.folder / f"whole-{case}", self.folder / "killed"
        if case not in self.whole:
            codes, said = self.run(whole, case)
            assert codes == [0] * case[1], said
            self.whole[case] = max(self.forks.seconds)
        codes = [0]
        while -9 not in codes:  # a random kill may come too late
            shutil.rmtree(place, ignore_errors=True)
            codes, said = self.run(place, case, **(self._aimed() if aimed else self._random(case)))
            assert -9 in codes or codes == [0] * case[1], (codes, said)
        assert "Traceback" not in said and not self.forks.orphans()
        return self._goes_on(place, whole, case)

    def _aimed(self) -> dict[str, str]:
        point = self.draw.choice(POINTS)
        return {"HFFT_FAULT": f"{point}:{self.draw.randint(1, 8)}:kill"}

    def _random(self, case: tuple[bool, int]) -> dict[str, str]:
        seconds = self.whole[case] * self.draw.uniform(0.2, 1.0)
        return {"KILL": f"SIGKILL {seconds:.3f} {self.draw.randrange(case[1])}"}

    def _goes_on(self, place: Path, whole: Path, case: tuple[bool, int]) -> str:
        run = place / "run"
        last = _last_whole(run)
        finished = (run / "metrics.json").exists()
        begun = (run / "run.lock.json").exists()
        codes, said = self.run(place, case, *(["--resume"] if begun else ["--overwrite"] if run.exists() else []))
        assert codes == [0] * case[1], (codes, said)
        assert finished or not last or f"resumed from {run / f'checkpoint-{last}'}\n" in said, (last, said)
        assert survival.equal(run, whole / "run"), said
        return "finished" if finished else f"step {last}" if last else "anew"


def _last_whole(run: Path) -> int:
    """The step of the newest whole checkpoint, renamed already or not; 0 if there is none."""
    places = [*run.glob("checkpoint-*"), *run.glob(".tmp-checkpoint-*")]
    return max((checkpoint.about(place)["step"] for place in places if not checkpoint.trouble(place)), default=0)


def main(count: int, seed: int) -> None:
    """Print what became of so many kills."""
    forks, folder, start = Forks(), Path(tempfile.mkdtemp()), time.monotonic()
    kills, found = Kills(forks, folder, seed), Counter()
    for number in range(count):
        found[kills.one()] += 1
        if (number + 1) % 20 == 0:
            print(f"{number + 1} kills, {time.monotonic() - start:.0f} s: {dict(found)}", flush=True)
    anew = found["anew"]
    print(f"{count} of {count} went on unattended ({anew} before their first checkpoint, anew) and ended bitwise equal")
    forks.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*[int(word) for word in sys.argv[1:3]], *[200, 0][len(sys.argv) - 1 :])

"""python tests/resumes.py: runs of 24 steps stopped after each of them, and resumed (`make resumes`).

Texts and pictures, all weights and LoRA; dropout, augmentation, two loader processes, two accumulated batches.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import survival
from forks import Forks

STEPS = 24  # 3 epochs of 8, the last of an epoch of one micro-batch instead of two
CASES = [("text", False), ("text", True), ("image", False), ("image", True)]


class Resumes:
    """One kind of run, and the same without interruption."""

    def __init__(self, forks: Forks, folder: Path, kind: str, lora: bool):
        self.forks, self.folder, self.kind, self.lora = forks, folder, kind, lora
        self.files = survival.files(folder, 58) if not (folder / "bert").exists() else folder
        self.whole = folder / f"whole-{kind}-{lora}"
        codes, said = self.run(self.whole)
        assert codes == [0] and survival.saved(self.whole / "run")[-1] == STEPS, said

    def run(self, place: Path, *words: str, **env: str) -> tuple[list[int], list[str]]:
        beat = {"num_train_epochs": 3, "eval_steps": 5, "save_total_limit": 2}
        file = survival.recipe(self.files, place, self.kind, lora=self.lora, **beat)
        return self.forks.run("train", file, *words, **env)

    def stopped_at(self, step: int) -> bool:
        """Whether the run that SIGTERM ends after this step, and that is resumed, ends bitwise as the whole one."""
        place, call = self.folder / "stopped", 15 * ((step - 1) // 8) + min(2 * ((step - 1) % 8 + 1), 15)
        shutil.rmtree(place, ignore_errors=True)
        codes, said = self.run(place, SIGNAL=f"SIGTERM {survival.STEP} {call} 0")
        assert codes == [75] and f"stopped at step {step};" in said[0], said
        codes, said = self.run(place, "--resume")
        assert codes == [0] and f"resumed from {place / 'run' / f'checkpoint-{step}'}\n" in said[0], said
        return survival.equal(place / "run", self.whole / "run")


def main() -> int:
    """Print how many are bitwise equal."""
    forks, folder, start, wrong = Forks(), Path(tempfile.mkdtemp()), time.monotonic(), 0
    for kind, lora in CASES:
        runs = Resumes(forks, folder, kind, lora)
        bad = [step for step in range(1, STEPS + 1) if not runs.stopped_at(step)]
        wrong += len(bad)
        name, seconds = f"{kind}, {'LoRA' if lora else 'all weights'}", time.monotonic() - start
        print(f"{name}: {STEPS - len(bad)} of {STEPS} bitwise equal; not after {bad} ({seconds:.0f} s)", flush=True)
    forks.close()
    shutil.rmtree(folder)
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)

"""The folder of a run: whose it is, how far it got, and what may be taken away from it.

    recipe.yaml  run.json  train.log  stages/NAME/{logs, checkpoints}  final/

Nothing is removed before everything that may be wrong with the request has been looked at, and ``run.json`` says whose
the folder is at every moment.
"""

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed import __version__
from mmembed.errors import InputError
from mmembed.files import write_json, write_text
from mmembed.settings import flat_settings, parse_yaml

RUN_FILE, RECIPE_FILE = "run.json", "recipe.yaml"
TRAINING, DONE = "training", "done"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: of the folder, which need not be there yet.
        name: of the recipe.
        key: names recipe, data and version; see :func:`mmembed.recipe.run_key`.
        recipe: the resolved recipe as YAML.
        stages: names of its stages in order.
    """

    path: Path
    name: str
    key: str
    recipe: str
    stages: Sequence[str]

    @property
    def final(self) -> Path:
        """Folder of the trained embedder."""
        return self.path / "final"

    @property
    def log(self) -> Path:
        """The run as a person reads it."""
        return self.path / "train.log"

    @property
    def is_done(self) -> bool:
        """Whether this very run is there, whole."""
        return self._found() == (self.key, DONE) and self.final.is_dir()

    def stage(self, name: str) -> Path:
        """Folder of a stage."""
        return self.path / "stages" / name

    def open(self, resume: str | Path, *, overwrite: bool, ours: bool) -> None:
        """Make the folder this run's, begun anew or to be gone on with.

        Args:
            resume: ``auto``, ``never``, or the checkpoint to go back to.
            overwrite: another run that stands here may go.
            ours: whether no other process holds the folder.

        Raises:
            InputError: another process writes here, another run stands here, or there is no such checkpoint; the folder
                is as it was.
        """
        if not ours:
            raise InputError(
                self.path, expected="a folder that no other process writes to", got="one that is being trained into",
                remedy="wait for the other run, or end it",
            )  # fmt: skip
        found, _ = self._found()
        if found != self.key and not overwrite and self._holds_work():
            raise InputError(
                self.path, expected="a new folder, or a run of this very recipe and data", got=self._difference(),
                remedy="choose another --output, or add --overwrite",
            )  # fmt: skip
        if resume not in ("auto", "never"):
            self._go_back(Path(resume))
        elif found != self.key or resume == "never":
            shutil.rmtree(self.path / "stages", ignore_errors=True)
            self.log.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self._write(TRAINING)
        write_text(self.path / RECIPE_FILE, self.recipe)

    def close(self, seconds: float) -> None:
        """The run is done; ``seconds`` are those of its last life."""
        self._write(DONE, train_seconds=seconds)

    def _write(self, state: str, **more: Any) -> None:
        facts = {"key": self.key, "name": self.name, "mmembed": __version__, "state": state}
        write_json(self.path / RUN_FILE, facts | more)

    def _found(self) -> tuple[str, str]:
        """Key and state of the run that stands here; empty words where none does."""
        path = self.path / RUN_FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise InputError(
                path, expected="what a run wrote", got=str(error), remedy="choose another --output, or remove the file"
            ) from error
        return found.get("key", ""), found.get("state", "")

    def _holds_work(self) -> bool:
        """Whether a run got so far that there is something to lose."""
        return self.final.is_dir() or any(self.path.glob("stages/*/checkpoints/step-*"))

    def _difference(self) -> str:
        """What the run that stands here has otherwise, in words."""
        path = self.path / RECIPE_FILE
        if not path.is_file():
            return f"a run without its {RECIPE_FILE}"
        old = parse_yaml(path.read_text(encoding="utf-8"), path)
        theirs, ours = flat_settings(old), flat_settings(parse_yaml(self.recipe, "recipe"))
        other = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
        shown = "; ".join(f"{name} was {theirs.get(name)}, is {ours.get(name)}" for name in other[:4])
        about = f"other settings ({shown})" if other else "other data, or by another version"
        return f"a run of '{old.get('name')}' with {about}"

    def _go_back(self, checkpoint: Path) -> None:
        """Take away what was written after a checkpoint of this run, so that the run goes on from it."""
        # takes seconds, which only this needs
        from mmembed.training.checkpoint import CheckpointFiles, check_facts, list_checkpoints, verify

        wanted = checkpoint.resolve()
        stage = next((name for name in self.stages if wanted.parent == self._checkpoints(name).resolve()), None)
        written = [] if stage is None else list_checkpoints(self._checkpoints(stage))
        names = [path.name for path in written]
        if stage is None or wanted.name not in names:
            known = f"there are {', '.join(names)}" if names else "look into stages/NAME/checkpoints"
            expected = f"auto, never, or a checkpoint step-... below {self.path / 'stages'}"
            raise InputError("--resume", expected=expected, got=checkpoint, remedy=known)
        check_facts(verify(checkpoint), {"recipe": self.key, "stage": stage}, checkpoint)
        for later in self.stages[list(self.stages).index(stage) + 1 :]:
            shutil.rmtree(self.stage(later), ignore_errors=True)
        for path in reversed(written[names.index(wanted.name) + 1 :]):
            CheckpointFiles().remove_checkpoint(path)

    def _checkpoints(self, stage: str) -> Path:
        return self.stage(stage) / "checkpoints"


@contextmanager
def held(directory: Path) -> Iterator[bool]:
    """Hold a directory for this process while the block runs; gives whether it is ours, or another process holds it.

    The hold ends with the process, however it ends, and does not pass to processes that it starts.

    Raises:
        InputError: the directory cannot be made, or its file system has no locks.
    """
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((directory / ".lock").open("w"))
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN) or error.filename is not None:
                remedy = "choose a folder on a disk that this process may write to and lock"
                raise InputError(directory, expected="a folder to write to", got=error, remedy=remedy) from error
            ours = False
        yield ours

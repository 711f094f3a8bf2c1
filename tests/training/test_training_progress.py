"""Progress of a stage: a bar on a terminal, a line now and then elsewhere, and the time left at this life's pace."""

import io
import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.warnings import PossibleUserWarning
from rich.console import Console
from torch.utils.data import DataLoader

from mmembed.training.progress import TrainingProgress
from mmembed.training.reports import StepReport

SECONDS = 20.0
"""Of a step; a line is said every 30."""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Small(LightningModule):
    """One weight, stepped by hand after every ``accumulate`` batches; 40 items a step."""

    def __init__(self, clock, accumulate=1, temperatures=(), broken_at=None):
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)
        self.clock, self.accumulate, self.temperatures, self.broken_at = clock, accumulate, temperatures, broken_at
        self.report = None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def training_step(self, batch, batch_idx):
        self.clock.now += SECONDS / self.accumulate
        self.manual_backward(self.layer(torch.ones(1, 1)).sum())
        if (batch_idx + 1) % self.accumulate == 0:
            self.optimizers().step()
            step = self.trainer.global_step
            if step == self.broken_at:
                raise ArithmeticError("no more")
            values = {"loss": 1 / step}
            if self.temperatures:
                values["temperature"] = self.temperatures[step - 1]
            self.report = StepReport(step, values, 40, 1, 1, {}, ())

    def validation_step(self, batch, batch_idx):
        self.log("val/hit@1", torch.tensor(0.75), batch_size=1)
        self.log("val/hit@1/maps", torch.tensor(0.5), batch_size=1)


def fit(module, progress, *, steps=5, validate_every=None, resumed=None):
    every = {"limit_val_batches": 0} if validate_every is None else {"val_check_interval": validate_every}
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[progress], max_epochs=-1, **every,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*no pre-optimization state was saved.*")
        checks = None if validate_every is None else DataLoader([0], batch_size=None)
        trainer.fit(module, DataLoader(range(20), batch_size=None), checks, ckpt_path=resumed, weights_only=True)
    return trainer


def shown(**terminal):
    return Console(file=io.StringIO(), width=100, **terminal)


@pytest.fixture
def clock():
    return Clock()


def lines_of(clock, module=None, **choices):
    console = shown()
    fit(module or Small(clock), TrainingProgress("fit", 5, console=console, wall=clock), **choices)
    return console.file.getvalue().splitlines()


def test_a_line_is_said_every_half_minute_and_at_the_end(clock):
    assert lines_of(clock) == [
        "train fit: step 2/5  loss 0.500  2 items/s  0:01:00 left",
        "train fit: step 4/5  loss 0.250  2 items/s  0:00:20 left",
        "train fit: step 5/5  loss 0.200  2 items/s  0:00:00 left",
    ]


def test_a_step_of_several_batches_is_shown_once(clock):
    assert lines_of(clock, Small(clock, accumulate=4))[-1] == "train fit: step 5/5  loss 0.200  2 items/s  0:00:00 left"


def test_a_temperature_is_shown_once_it_moves(clock):
    said = lines_of(clock, Small(clock, temperatures=(0.02, 0.02, 0.02, 0.019, 0.018)))
    assert ["temperature" in line for line in said] == [False, True, True]
    assert said[-1] == "train fit: step 5/5  loss 0.200  temperature 0.0180  2 items/s  0:00:00 left"


def test_validation_says_what_the_whole_slice_gave(clock):
    said = lines_of(clock, validate_every=2)
    assert [line for line in said if "validated" in line] == [
        "validated fit: step 2/5  hit@1 0.750", "validated fit: step 4/5  hit@1 0.750"
    ]  # fmt: skip


def test_a_resumed_run_starts_at_its_step_with_the_pace_of_this_life(clock, tmp_path):
    state = tmp_path / "state.ckpt"
    fit(Small(clock), TrainingProgress("fit", 2, console=shown(), wall=clock), steps=2).save_checkpoint(state)
    clock.now = 1e6
    assert lines_of(clock, resumed=state) == [
        "train fit: step 4/5  loss 0.250  2 items/s  0:00:20 left",
        "train fit: step 5/5  loss 0.200  2 items/s  0:00:00 left",
    ]


def test_the_bar_of_a_resumed_run_starts_at_its_step(clock):
    console = shown(force_terminal=True)
    progress = TrainingProgress("fit", 5, console=console, wall=clock)
    progress.on_train_start(SimpleNamespace(is_global_zero=True, global_step=2), None)
    progress.on_train_end(None, None)
    assert "2/5" in console.file.getvalue()


def test_a_bar_shows_step_loss_pace_time_left_and_validation(clock):
    class Looks(Small):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            progress._bar.refresh()

    console = shown(force_terminal=True)
    progress = TrainingProgress("fit", 8, console=console, wall=clock)
    fit(Looks(clock), progress, validate_every=4)
    frames = [frame for frame in console.file.getvalue().split("\r") if "train fit" in frame]
    assert any("4/8" in frame and "validating" in frame for frame in frames)
    assert any("validated fit: step 4/8  hit@1 0.750" in frame for frame in console.file.getvalue().split("\r"))
    assert all(words in frames[-1] for words in ("5/8", "loss 0.200", "2 items/s", "0:01:00 left"))


def test_the_bar_is_closed_before_an_error_is_shown(clock):
    console = shown(force_terminal=True)
    with pytest.raises(ArithmeticError, match="no more"):
        fit(Small(clock, broken_at=3), TrainingProgress("fit", 5, console=console, wall=clock))
    text = console.file.getvalue()
    assert "loss 0.500  2 items/s" in text
    # shows the cursor again
    assert text.rstrip("\n").endswith("\x1b[?25h")


def test_other_ranks_show_nothing(clock):
    for terminal in (True, False):
        console = shown(force_terminal=terminal)
        progress = TrainingProgress("fit", 1, console=console, wall=clock)
        trainer = SimpleNamespace(is_global_zero=False, global_step=0, sanity_checking=False, callback_metrics={})
        module = SimpleNamespace(report=StepReport(1, {"loss": 1.0}, 1, 1, 1, {}, ()))
        progress.on_train_start(trainer, module)
        progress.on_train_batch_end(trainer, module, None, None, 0)
        progress.on_validation_end(trainer, module)
        progress.on_train_end(trainer, module)
        assert console.file.getvalue() == ""

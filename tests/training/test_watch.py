"""What is logged of a stage, where it stands, and what its time is booked under."""

import resource
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from mmembed.training.loggers import make_loggers
from mmembed.training.machine import memory
from mmembed.training.reports import StepReport
from mmembed.training.train_log import TrainLog
from mmembed.training.watch import Watch

WAIT = [4.0, 1.0, 0.5, 2.0, 0.0]
WORK = [8.0, 3.0, 1.5, 2.0, 1.0]
VALIDATION = CHECKPOINT = 100.0


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Points(Logger):
    """Keeps what it is given."""

    name = version = ""

    def __init__(self):
        super().__init__()
        self.points, self.ended = [], None

    def log_hyperparams(self, *_):
        raise NotImplementedError

    def log_metrics(self, metrics, step=None):
        self.points.append((step, dict(metrics)))

    def finalize(self, status):
        self.ended = status


class Batches(torch.utils.data.Dataset):
    """The numbers of the batches of a life, each after its wait."""

    def __init__(self, clock, first, last):
        self.clock, self.first, self.last = clock, first, last

    def __len__(self):
        return self.last - self.first

    def __getitem__(self, index):
        self.clock.now += WAIT[self.first + index]
        return self.first + index


def report_of(step):
    """Step s has 2s items, 3s tokens of 4s computed, and its rows from a and, at even steps, b."""
    sources = {"a": 3, "b": 1} if step % 2 == 0 else {"a": 4, "b": 0}
    return StepReport(step, {"loss": 1 / step, "lr": 0.5}, 2 * step, 3 * step, 4 * step, sources, ())


class Small(LightningModule):
    """One weight, stepped by hand after every ``accumulate`` batches."""

    def __init__(self, clock, accumulate=1, broken_at=None):
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)
        self.clock, self.accumulate, self.broken_at = clock, accumulate, broken_at
        self.report = None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def training_step(self, number, batch_idx):
        if number == self.broken_at:
            raise ArithmeticError("no more")
        self.clock.now += WORK[int(number)]
        self.manual_backward(self.layer(torch.ones(1, 1)).sum())
        if (int(number) + 1) % self.accumulate == 0:
            self.optimizers().step()
            self.report = report_of((int(number) + 1) // self.accumulate)

    def validation_step(self, batch, batch_idx):
        self.clock.now += VALIDATION
        self.log("val/hit@1", torch.tensor(0.75), batch_size=1)


class Saves(Callback):
    """Writes a checkpoint after a step, which takes its time."""

    def __init__(self, clock, step, path):
        self.clock, self.step, self.path = clock, step, path

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            self.clock.now += CHECKPOINT


def fit(module, watch, batches, *, steps, validate_every=None, more=(), resumed=None):
    every = {"limit_val_batches": 0} if validate_every is None else {"val_check_interval": validate_every}
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch, *more], **every,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*no pre-optimization state was saved.*")
        checks = None if validate_every is None else DataLoader([0], batch_size=None)
        trainer.fit(module, DataLoader(batches, batch_size=None), checks, ckpt_path=resumed, weights_only=True)


def speeds_of(first, last):
    """The slow twin: the rates of steps ``first`` to ``last``, counted from 1."""
    steps = range(first, last + 1)
    wait, work = (sum(spent[step - 1] for step in steps) for spent in (WAIT, WORK))
    return {
        "speed/items_per_second": sum(2 * step for step in steps) / (wait + work),
        "speed/tokens_per_second": sum(3 * step for step in steps) / (wait + work),
        "speed/seconds_per_step": (wait + work) / len(steps),
        "speed/data_wait": wait / (wait + work),
        "speed/padding": 0.25,
    }


def part(metrics, prefix):
    return {name: value for name, value in metrics.items() if name.startswith(prefix)}


@pytest.fixture
def clock():
    return Clock()


def watching(clock, log_every, loggers, log=None, cpu=None):
    return Watch(log_every, loggers, log or TrainLog.none(), wall=clock, cpu=cpu or clock)


def test_every_so_many_steps_the_first_and_the_last_are_logged_with_the_pace_between(clock):
    points = Points()
    fit(Small(clock), watching(clock, 2, [points]), Batches(clock, 0, 5), steps=5)
    stretches = [(1, 1), (2, 2), (3, 4), (5, 5)]
    assert [step for step, _ in points.points] == [last for _, last in stretches]
    assert [part(metrics, "speed/") for _, metrics in points.points] == [speeds_of(*steps) for steps in stretches]
    assert [part(metrics, "train/") for _, metrics in points.points] == [
        {"train/loss": 1 / last, "train/lr": 0.5} for _, last in stretches
    ]
    assert points.ended == "success"


def test_the_composition_is_of_all_steps_so_far(clock):
    watch = watching(clock, 2, [points := Points()])
    fit(Small(clock), watch, Batches(clock, 0, 5), steps=5)
    assert [part(metrics, "share/") for _, metrics in points.points] == [
        {"share/a": 1.0, "share/b": 0.0}, {"share/a": 7 / 8, "share/b": 1 / 8},
        {"share/a": 14 / 16, "share/b": 2 / 16}, {"share/a": 18 / 20, "share/b": 2 / 20},
    ]  # fmt: skip
    assert watch.composition == {"a": 18, "b": 2}


def test_validation_and_checkpoints_are_no_steps_time(clock, tmp_path):
    points = Points()
    fit(
        Small(clock), watching(clock, 4, [points]), Batches(clock, 0, 5), steps=5, validate_every=2,
        more=[Saves(clock, 3, tmp_path / "state.ckpt")],
    )  # fmt: skip
    assert clock.now == sum(WAIT) + sum(WORK) + 2 * VALIDATION + CHECKPOINT
    found = {step: part(metrics, "speed/") for step, metrics in points.points if "train/loss" in metrics}
    # the waits after a validation or a checkpoint are left out with it
    stretch = WAIT[1] + WORK[1] + WORK[2] + WORK[3]
    assert found[4]["speed/seconds_per_step"] == stretch / 3
    assert found[4]["speed/data_wait"] == WAIT[1] / stretch


def test_validation_is_logged_at_the_step_it_followed(clock):
    points = Points()
    fit(Small(clock), watching(clock, 10, [points]), Batches(clock, 0, 5), steps=5, validate_every=2)
    found = [(step, metrics) for step, metrics in points.points if "train/loss" not in metrics]
    assert found == [(2, {"val/hit@1": 0.75}), (4, {"val/hit@1": 0.75})]


def test_a_step_of_several_batches_is_counted_once(clock):
    points = Points()
    watch = watching(clock, 1, [points])
    fit(Small(clock, accumulate=2), watch, Batches(clock, 0, 4), steps=2)
    assert [step for step, _ in points.points] == [1, 2]
    assert watch.composition == {"a": 7, "b": 1}
    seconds = [sum(WAIT[i] + WORK[i] for i in batches) for batches in [(0, 1), (2, 3)]]
    assert [metrics["speed/seconds_per_step"] for _, metrics in points.points] == seconds


def test_a_resumed_run_goes_on_at_its_own_step(clock, tmp_path):
    state = tmp_path / "state.ckpt"
    kinds = ["csv", "tensorboard"]
    watch = watching(clock, 2, make_loggers(kinds, tmp_path, "fit"))
    fit(Small(clock), watch, Batches(clock, 0, 5), steps=5, more=[Saves(clock, 3, state)])
    again = watching(clock, 2, [points := Points(), *make_loggers(kinds, tmp_path, "fit")])
    fit(Small(clock), again, Batches(clock, 3, 5), steps=5, resumed=state)

    assert [step for step, _ in points.points] == [4, 5]
    assert [part(metrics, "speed/") for _, metrics in points.points] == [speeds_of(4, 4), speeds_of(5, 5)]
    assert again.composition == watch.composition == {"a": 18, "b": 2}
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "4", "5"]
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == [1, 2, 4, 5]


def test_a_run_that_resumes_at_its_end_logs_nothing(clock, tmp_path):
    state = tmp_path / "state.ckpt"
    fit(Small(clock), watching(clock, 2, []), Batches(clock, 0, 5), steps=5, more=[Saves(clock, 5, state)])
    again = watching(clock, 2, [points := Points()])
    fit(Small(clock), again, Batches(clock, 0, 5), steps=5, resumed=state)
    assert points.points == []
    assert again.composition == {"a": 18, "b": 2}


def test_an_error_is_logged_after_the_last_step_there_was(clock, tmp_path):
    points, path = Points(), tmp_path / "train.log"
    watch = watching(clock, 10, [points], TrainLog(path))
    with pytest.raises(ArithmeticError, match="no more"):
        fit(Small(clock, broken_at=3), watch, Batches(clock, 0, 5), steps=5)
    assert [step for step, _ in points.points] == [1, 3]
    assert points.ended == "failed"
    assert path.read_text().splitlines()[-1].endswith("ended after step 3 by ArithmeticError: no more")


def test_a_step_that_another_callback_refuses_is_not_taken_for_one_that_was_seen(clock):
    class Refuses(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                raise ArithmeticError("refused")

    watch = watching(clock, 10, [points := Points()])
    with pytest.raises(ArithmeticError, match="refused"):
        fit(Small(clock), Refuses(), Batches(clock, 0, 5), steps=5, more=[watch])
    assert [(step, metrics["train/loss"]) for step, metrics in points.points] == [(1, 1.0), (2, 0.5)]


def test_a_logger_without_room_does_not_stop_the_run(clock, tmp_path):
    class Full(Points):
        def log_metrics(self, metrics, step=None):
            raise OSError(28, "No space left on device")

    points, path = Points(), tmp_path / "train.log"
    fit(Small(clock), watching(clock, 5, [Full(), points], TrainLog(path)), Batches(clock, 0, 5), steps=5)
    assert [step for step, _ in points.points] == [1, 5]
    said = [line[20:] for line in path.read_text().splitlines() if "not logged" in line]
    assert said == [f"step {s} not logged by Full: [Errno 28] No space left on device" for s in (1, 5)]


def test_other_ranks_write_nothing(clock, tmp_path):
    points, path = Points(), tmp_path / "train.log"
    watch = watching(clock, 1, [points], TrainLog(path))
    trainer = SimpleNamespace(is_global_zero=False, sanity_checking=False, callback_metrics={"val/loss": 1.0})
    module = Small(clock)
    watch.on_train_start(trainer, module)
    watch.on_train_batch_start(trainer, module, None, 0)
    module.report = report_of(1)
    watch.on_train_batch_end(trainer, module, None, None, 0)
    watch.on_validation_start(trainer, module)
    watch.on_validation_end(trainer, module)
    watch.on_exception(trainer, module, ArithmeticError())
    watch.on_train_end(trainer, module)
    assert (points.points, points.ended, path.exists()) == ([], None, False)


def test_a_cpu_is_as_busy_as_its_threads(clock):
    points = Points()
    watch = watching(clock, 1, [points], cpu=lambda: clock.now * 0.75)
    fit(Small(clock), watch, Batches(clock, 0, 5), steps=5)
    assert [m["machine/utilisation"] for _, m in points.points] == [0.75 / torch.get_num_threads()] * 5


def test_memory_is_the_peak_of_this_process():
    before = memory(torch.device("cpu"))["machine/memory_mib"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = torch.ones(64 << 18)
    after = memory(torch.device("cpu"))["machine/memory_mib"]
    assert before == pytest.approx(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))
    assert after >= before
    assert held.numel() * 4 == 64 << 20

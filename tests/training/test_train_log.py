"""``train.log`` as a person reads it."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch import nn

from mmembed.data.quarantine import BadRow, Quarantine
from mmembed.data.sampler import Sampler
from mmembed.data.settings import Sampling
from mmembed.processes import Processes
from mmembed.training.machine import versions
from mmembed.training.reports import StepReport
from mmembed.training.settings import Stage
from mmembed.training.train_log import TrainLog, count_parameters

STEPS = [
    (1, {"loss": 4.15888, "grad_norm": 123.4, "lr": 0.0, "temperature": 0.02}, (64, 2.5, 0.4, 0.125)),
    (500, {"loss": 0.1234, "grad_norm": 0.51234, "lr": 5e-5, "temperature": 0.0187}, (12345.6, 1.0, 0.03, 0.0)),
]
WHOLE = """\
2026-01-01 12:00:00 stage fit: 2000 steps
2026-01-01 12:00:00   {versions}
2026-01-01 12:00:00   8 processes on 2 machines
2026-01-01 12:00:00   part                    trains     of
2026-01-01 12:00:00   backbone.visual.weight       0  1,000
2026-01-01 12:00:00   pooler.weight                6      6
2026-01-01 12:00:00   all                          6  1,006
2026-01-01 12:00:00   source    rows  share
2026-01-01 12:00:00   maps    10,000  75.0%
2026-01-01 12:00:00   shapes      40  25.0%
2026-01-01 12:00:00   goes on from step-00000400
2026-01-01 12:00:00 step    1/2000  loss  4.1589  norm     123  lr 0.00e+00  temp 0.0200       64 items/s    \
2.50 s/step   40% wait   12% pad
2026-01-01 12:00:00 step  500/2000  loss  0.1234  norm   0.512  lr 5.00e-05  temp 0.0187   12,346 items/s    \
1.00 s/step    3% wait    0% pad
2026-01-01 12:00:00 validation after step 500  hit@1 0.8125  loss 0.5000
2026-01-01 12:00:00   hit@1/maps    0.8750
2026-01-01 12:00:00   hit@1/shapes  0.7500
2026-01-01 13:02:03 stage fit done, 1:02:03 in this process
2026-01-01 13:02:03   source    rows  planned
2026-01-01 13:02:03   maps    12,000   12,000
2026-01-01 13:02:03   shapes   4,000    4,000
2026-01-01 13:02:03   maps: 1 of 10000 rows could not be used
2026-01-01 13:02:03     row 7: broken.png: expected a picture, got 0 bytes
"""


class Model(nn.Module):
    """A frozen tower and a pooler that trains."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"visual": nn.Linear(1000, 1, bias=False).requires_grad_(False)})
        self.pooler = nn.ParameterDict({"weight": torch.zeros(2, 3)})


class Day:
    now = datetime(2026, 1, 1, 12)

    def __call__(self):
        return self.now


@pytest.fixture
def sampler():
    return Sampler({"maps": 10_000, "shapes": 40}, {"maps": 3.0, "shapes": 1.0}, Sampling(batch_size=8), seed=0)


def write_all(log, day, sampler):
    quarantine = Quarantine(sampler.sizes, 0.01)
    log.begin("fit", Stage({}, 2000), Model(), sampler, Processes(0, 8, 4), Path("checkpoints/step-00000400"))
    for step, values, rates in STEPS:
        names = ("items_per_second", "seconds_per_step", "data_wait", "padding")
        speeds = {f"speed/{name}": rate for name, rate in zip(names, rates, strict=True)}
        log.step(StepReport(step, values, 1, 1, 1, {}, ()), speeds, 2000)
    log.validation(
        500, {"val/hit@1": 0.8125, "val/loss": 0.5, "val/hit@1/maps": 0.875, "val/hit@1/shapes": 0.75}
    )  # fmt: skip
    quarantine.add([BadRow("maps", 7, "broken.png: expected a picture, got 0 bytes")])
    day.now += timedelta(hours=1, minutes=2, seconds=3)
    log.end("fit", {"maps": 12_000, "shapes": 4_000}, {"maps": 12_000, "shapes": 4_000}, quarantine)


def test_a_run_reads_like_this(tmp_path, sampler):
    day = Day()
    write_all(TrainLog(tmp_path / "run/train.log", day), day, sampler)
    assert (tmp_path / "run/train.log").read_text() == WHOLE.format(versions=versions())


def test_a_stage_that_replaced_no_row_says_so(tmp_path, sampler):
    log = TrainLog(tmp_path / "train.log")
    log.end("fit", {"maps": 3, "shapes": 1}, {"maps": 3, "shapes": 1}, Quarantine(sampler.sizes, 0.01))
    assert (tmp_path / "train.log").read_text().splitlines()[-1].endswith("   no row had to be replaced")


def test_a_second_life_goes_on_in_the_same_file(tmp_path):
    for line in ("one", "two\nlines "):
        TrainLog(tmp_path / "train.log", Day()).line(line)
    lines = [line[20:] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert lines == ["one", "two", "lines"]


def test_the_log_of_other_ranks_is_nowhere(tmp_path, monkeypatch, sampler):
    monkeypatch.chdir(tmp_path)
    write_all(TrainLog.none(), Day(), sampler)
    TrainLog.none().end("fit", {}, {"maps": 3}, Quarantine(sampler.sizes, 0.01))
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_cannot_be_written_goes_to_standard_error(tmp_path, capsys):
    log = TrainLog(tmp_path / "train.log", Day())
    (tmp_path / "train.log").mkdir()
    log.line("step 1")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "2026-01-01 12:00:00 step 1"
    assert second.startswith("2026-01-01 12:00:00 not written to train.log: [Errno ")


def test_parameters_are_counted_by_part():
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "b": nn.Linear(1, 1, bias=False)})
    model["a"][0].weight.requires_grad_(False)
    assert count_parameters(model, depth=2) == {"a.0": (3, 9), "a.1": (4, 4), "b.weight": (1, 1)}
    assert count_parameters(model, depth=1) == {"a": (7, 13), "b": (1, 1)}

"""Numbers of a run that is resumed stand once, in a CSV file, in TensorBoard and in Weights & Biases."""

import csv
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmembed.errors import InputError
from mmembed.training.loggers import CsvLog, make_loggers

NAMES = ("loss", "a,b", 'said "so"')
METRICS = st.dictionaries(st.sampled_from(NAMES), st.floats(allow_nan=False), min_size=1)
LIFE = st.lists(st.tuples(st.integers(1, 9), METRICS), min_size=1, max_size=8)


def rows_of(path):
    """Step -> metrics that have a value."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row.pop("step")) for row in rows]
    assert steps == sorted(set(steps))
    found = [{name: float(value) for name, value in row.items() if value} for row in rows]
    return dict(zip(steps, found, strict=True))


def log_all(logger, points):
    for step, metrics in points:
        logger.log_metrics(metrics, step=step)
    logger.finalize("success")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("csv") / "metrics.csv"


@settings(max_examples=30, deadline=None)
@given(st.lists(LIFE, min_size=1, max_size=3))
def test_a_csv_file_holds_each_step_once(path, lives):
    path.unlink(missing_ok=True)
    expected = {}
    for life in lives:
        log_all(CsvLog(path), life)
        expected = {step: row for step, row in expected.items() if step < life[0][0]}
        for step, metrics in life:
            expected[step] = expected.get(step, {}) | metrics
    assert rows_of(path) == expected


def test_a_csv_file_cut_at_any_byte_keeps_its_whole_rows(path):
    path.unlink(missing_ok=True)
    log_all(CsvLog(path), [(step, {"loss": step / 2}) for step in range(1, 5)])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        log_all(CsvLog(path), [(9, {"loss": 0.0})])
        kept = range(1, max(1, whole[:cut].count(b"\n") + (whole[:cut].endswith(b"\r"))))
        assert rows_of(path) == {step: {"loss": step / 2} for step in kept} | {9: {"loss": 0.0}}


def test_a_row_is_appended_where_that_does(path):
    path.unlink(missing_ok=True)
    logger = CsvLog(path)
    logger.log_metrics({"loss": 1.0}, step=1)
    file = path.stat().st_ino
    logger.log_metrics({"loss": 0.5}, step=2)
    assert path.stat().st_ino == file


def test_half_a_row_of_a_full_disk_is_not_joined_to_the_next(path, monkeypatch):
    path.unlink(missing_ok=True)
    logger = CsvLog(path)
    logger.log_metrics({"loss": 1.0}, step=1)

    def fill(writer, row):
        with path.open("ab") as file:
            file.write(b"2,0.")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as fault:
        fault.setattr(csv.DictWriter, "writerow", fill)
        with pytest.raises(OSError, match="No space left"):
            logger.log_metrics({"loss": 0.5}, step=2)
    logger.log_metrics({"loss": 0.25}, step=3)
    assert rows_of(path) == {1: {"loss": 1.0}, 3: {"loss": 0.25}}


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    for steps in (range(1, 8), range(5, 10)):
        (logger,) = make_loggers(["tensorboard"], tmp_path, "fit")
        log_all(logger, [(step, {"train/loss": step / 2}) for step in steps])
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [(s, s / 2) for s in range(1, 10)]


def test_weights_and_biases_goes_on_with_its_run_without_network(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    for step in (1, 2):
        (logger,) = make_loggers(["wandb"], tmp_path, "fit")
        log_all(logger, [(step, {"train/loss": 0.5})])
    # its own process writes the files, and may still be at it
    wandb.teardown()

    run = (tmp_path / "wandb_run.txt").read_text()
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{run}.wandb"] * 2
    assert all(b"train/loss" in file.read_bytes() for file in files)


def test_weights_and_biases_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"loggers: expected the package wandb, got .*; pip install mmembed\[wandb\]"):
        make_loggers(["csv", "wandb"], tmp_path, "fit")


def test_loggers_write_in_the_folder_they_are_given(tmp_path):
    loggers = make_loggers(["csv", "tensorboard"], tmp_path, "fit")
    for logger in loggers:
        log_all(logger, [(1, {"loss": 1.0})])
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv", "logs"}

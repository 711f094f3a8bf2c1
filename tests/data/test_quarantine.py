"""Bad rows: replaced by the next row of their source, counted once, and the end of the run where they are too many."""

import json
import pickle
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import LostTableError, open_mixture
from mmembed.data.quarantine import BadRow, Quarantine, check_share
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError, MediaError
from mmembed.items import Image, Item, Pair

SIZE = 20


class Refuse:
    """Prepares a pair to the text of its query, unless its number is one of some; counts its tries."""

    by_step = False

    def __init__(self, bad):
        self.bad = bad
        self.tried = []

    def prepare(self, pair, step):
        number = int(pair.query.text.split()[1])
        self.tried.append((pair.source, number))
        if number in self.bad:
            raise MediaError(f"{number}.png", expected="a whole picture", got="noise", remedy="fetch it again")
        return pair.source, number

    def assemble(self, step, prepared, bad):
        return prepared, bad


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name in ("a.jsonl", "b.parquet"):
        write_pairs(folder / name, [Pair(Item.of(f"q {i}"), (Item.of("p"),)) for i in range(SIZE)])
    return folder


def dataset(folder, bad, max_bad=0.5, **ranks):
    sampling = Sampling(batch_size=9, block_size=3, window=4, max_bad=max_bad)
    sources = {"a": Source("a.jsonl"), "b": Source("b.parquet", limit=15)}
    mixture = open_mixture(sources, sampling, seed=1, data_root=folder)
    return StepDataset(mixture, Refuse(bad), **ranks)


def slow_rows(steps, step, bad):
    """The usable rows of a step and the bad ones met, by trying one number after the other."""
    rows, met = [], []
    for source, row in steps.mixture.rows(step)[steps.rank :: steps.world]:
        size = {"a": SIZE, "b": 15}[source]
        while row in bad:
            if (source, row) not in met:
                met.append((source, row))
            row = row + 1 if row + 1 < size else 0
        rows.append((source, row))
    return rows, met


@pytest.mark.parametrize("bad", [{3}, {3, 4, 5}, {0, 14, 19}], ids=["one", "a run", "across the end of the table"])
@pytest.mark.parametrize("ranks", [{}, {"rank": 1, "world": 2}], ids=["one rank", "rank 1 of 2"])
def test_a_bad_row_is_replaced_by_the_next_that_can_be_used(folder, bad, ranks):
    steps = dataset(folder, bad, **ranks)

    for step in range(12):
        prepared, met = steps[step]
        assert (prepared, [(row.source, row.row) for row in met]) == slow_rows(steps, step, bad)


def test_a_bad_row_says_why(folder):
    met = {row for step in range(12) for row in dataset(folder, {3})[step][1]}

    reason = "3.png: expected a whole picture, got noise; fetch it again"
    assert met == {BadRow("a", 3, reason), BadRow("b", 3, reason)}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_do_not_change_what_replaces_bad_rows(folder):
    bad = {0, 3, 4, 9, 14, 19}
    expected = [dataset(folder, bad)[step] for step in range(12)]

    assert sum(len(met) for _, met in expected) > 12
    for num_workers in (0, 1, 3):
        assert list(step_loader(dataset(folder, bad), 0, 12, num_workers)) == expected


def test_a_bad_row_is_tried_once(folder):
    steps = dataset(folder, {3, 4})
    for step in range(12):
        steps[step]

    tried = steps.preparer.tried
    assert len(tried) > 12 * 9
    assert {tried.count((source, row)) for source in "ab" for row in (3, 4)} == {1}


def test_a_row_that_cannot_be_read_is_replaced(tmp_path):
    lines = [json.dumps({"query": f"q {i}", "positives": ["p"]}) for i in range(8)]
    lines[2], lines[5] = "{broken", json.dumps({"query": {"text": "q", "image": "gone.png"}, "positives": ["p"]})
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    mixture = open_mixture({"t": Source("t.jsonl")}, Sampling(8, 8, 1, max_bad=0.3), seed=0, data_root=tmp_path)

    prepared, bad = StepDataset(mixture, Refuse(set()))[0]

    assert sorted(number for _, number in prepared) == [0, 1, 3, 3, 4, 6, 6, 7]
    reasons = {row.row: row.reason for row in bad}
    assert "t.jsonl: line 3: expected a JSON object, got '{broken'" in reasons[2]
    assert "t.jsonl: line 6: query: item.image: expected a file, got no such file" in reasons[5]


def test_with_no_share_the_first_bad_row_stops(folder):
    with pytest.raises(InputError, match=r"mixture\.[ab]: expected at most 0 rows .* got 1 of (15|20): row 3: 3\.png"):
        list(step_loader(dataset(folder, {3}, max_bad=0.0), 0, 12))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_table_of_bad_rows_is_not_walked_to_its_end(folder, num_workers):
    steps = dataset(folder, set(range(SIZE)), max_bad=0.2)

    with pytest.raises(InputError) as caught:
        list(step_loader(steps, 0, 12, num_workers))

    source, row = steps.mixture.rows(0)[0]
    size = {"a": SIZE, "b": 15}[source]
    message = str(caught.value)
    allowed = size // 5
    assert message.startswith(
        f"mixture.{source}: expected at most {allowed} rows that cannot be used (sampling.max_bad 0.2), "
        f"got {allowed + 1} of {size}: row {row}: {row}.png: expected a whole picture"
    )
    assert message.endswith("; mend the rows, or raise sampling.max_bad")
    if num_workers == 0:
        assert len(steps.preparer.tried) == allowed + 1


def test_a_source_without_any_good_row_ends_the_run_whatever_may_be_bad(folder):
    with pytest.raises(
        InputError, match=r"mixture\.[ab]: expected at most (14|19) rows .* got (15 of 15|20 of 20): row"
    ):
        dataset(folder, set(range(SIZE)), max_bad=1.0)[0]


def open_files(folder, suffix, picture, size=300):
    """A mixture of one table with a picture in every row."""
    (folder / "pictures").mkdir()
    pairs = []
    for number in range(size):
        path = folder / "pictures" / f"{number % 7}.png"
        if not path.exists():
            picture(8, 8, seed=number).save(path)
        pairs.append(Pair(Item.of(f"q {number}"), (Item((Image(str(path)),)),)))
    write_pairs(folder / f"t.{suffix}", pairs)
    sampling = Sampling(batch_size=8, block_size=8, window=4)
    mixture = open_mixture({"t": Source(f"t.{suffix}")}, sampling, seed=0, data_root=folder)
    return StepDataset(mixture, Refuse(set()))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_media_folder_that_vanishes_ends_the_run_and_is_named(tmp_path, picture, suffix, num_workers):
    steps = open_files(tmp_path, suffix, picture)
    steps[0]

    shutil.rmtree(tmp_path / "pictures")

    with pytest.raises(InputError) as caught:
        list(step_loader(steps, 1, 40, num_workers))
    message = str(caught.value)
    assert message.startswith(
        "mixture.t: expected at most 3 rows that cannot be used (sampling.max_bad 0.01), got 4 of"
    )
    assert f"t.{suffix}: " in message
    assert f"expected a file, got no such file '{tmp_path / 'pictures'}" in message


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_table_that_vanishes_before_it_is_mapped_ends_the_run_and_is_named(tmp_path, picture, suffix, num_workers):
    # what a worker gets that does not inherit the memory of the main process
    steps = pickle.loads(pickle.dumps(open_files(tmp_path, suffix, picture)))

    for path in tmp_path.glob("*t.*"):
        path.unlink()

    with pytest.raises(LostTableError) as caught:
        list(step_loader(steps, 0, 40, num_workers))
    message = str(caught.value)
    assert message.startswith(f"mixture.t: {tmp_path}/t.{suffix}: expected the table that was opened, got ")
    assert "o such file or directory" in message
    assert message.endswith("; put the file back and go on from a checkpoint")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_table_that_vanishes_under_its_map_is_read_to_the_end(tmp_path, picture, suffix, num_workers):
    # the map holds the bytes of a removed file; forked workers inherit it, so all go on as if nothing had happened
    steps = open_files(tmp_path, suffix, picture)
    expected = [steps[step] for step in range(10)]

    for path in tmp_path.glob("*t.*"):
        path.unlink()

    assert list(step_loader(steps, 0, 10, num_workers)) == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_table_whose_copy_is_cut_short_ends_the_run_and_is_named(tmp_path, picture, num_workers):
    steps = open_files(tmp_path, "parquet", picture)
    copy = tmp_path / ".t.parquet.arrow"

    copy.write_bytes(copy.read_bytes()[:100])

    with pytest.raises(LostTableError, match=r"mixture\.t: .*t\.parquet: expected the table .*, got Not an Arrow file"):
        list(step_loader(steps, 0, 10, num_workers))


def bad(source, row):
    return BadRow(source, row, f"reason {row}")


def test_a_quarantine_holds_each_row_once():
    quarantine = Quarantine({"a": 100, "b": 100}, 0.1)

    assert quarantine.add([bad("a", 5), bad("b", 5), bad("a", 5)]) == [bad("a", 5), bad("b", 5)]
    # another reason for a known row, as another process may give it, is no other row
    assert quarantine.add([bad("a", 7), BadRow("a", 5, "otherwise"), bad("b", 5)]) == [bad("a", 7)]
    assert quarantine.add([]) == []


def test_the_very_object_that_is_held_is_not_new():
    quarantine, row = Quarantine({"a": 100}, 0.1), bad("a", 5)

    assert [quarantine.add([row]), quarantine.add([row])] == [[row], []]


def test_more_bad_rows_than_may_be_stop_the_run():
    quarantine = Quarantine({"a": 300, "b": 10_000}, 0.01)
    quarantine.add([bad("b", row) for row in range(100)])
    quarantine.add([bad("a", row) for row in (7, 2, 9)])

    with pytest.raises(InputError) as caught:
        quarantine.add([bad("a", 4)])
    assert str(caught.value) == (
        "mixture.a: expected at most 3 rows that cannot be used (sampling.max_bad 0.01), got 4 of 300: "
        "row 7: reason 7; row 2: reason 2; row 9: reason 9; mend the rows, or raise sampling.max_bad"
    )


@given(percent=st.integers(0, 99), size=st.sampled_from([100, 1000, 3700]))
@settings(max_examples=100, deadline=None)
def test_a_share_means_its_decimal_text(percent, size):
    allowed = percent * (size // 100)
    check_share([bad("a", row) for row in range(allowed)] or [bad("a", 0)], size, max(percent, 1) / 100)

    with pytest.raises(InputError, match=f"got {allowed + 1} of {size}"):
        check_share([bad("a", row) for row in range(allowed + 1)], size, percent / 100)


def test_the_report_counts_and_lists_the_rows():
    quarantine = Quarantine({"a": 1000, "b": 30, "c": 5000}, 0.5)
    quarantine.add([bad("c", row) for row in reversed(range(22))] + [bad("a", 9), bad("a", 4)])

    assert quarantine.report() == [
        "a: 2 of 1000 rows could not be used",
        "  row 4: reason 4",
        "  row 9: reason 9",
        "c: 22 of 5000 rows could not be used",
        *(f"  row {row}: reason {row}" for row in range(20)),
        "  and 2 more",
    ]
    assert Quarantine({"a": 3}, 0.5).report() == []


def test_a_quarantine_survives_a_checkpoint():
    before, after = Quarantine({"a": 100, "b": 100}, 0.1), Quarantine({"a": 100, "b": 100}, 0.1)
    before.add([bad("b", 3), bad("a", 8)])
    after.add([bad("a", 1)])

    after.load(json.loads(json.dumps(before.state())))

    assert after.report() == before.report()
    assert after.add([bad("a", 8), bad("a", 1)]) == [bad("a", 1)]


def test_a_quarantine_of_another_mixture_is_refused():
    with pytest.raises(InputError, match="quarantine: expected one of a, b, got c; go on with the recipe that the run"):
        Quarantine({"a": 1, "b": 1}, 0.1).load({"rows": [["c", 0, "reason"]]})


def test_a_bad_row_travels_between_processes():
    assert pickle.loads(pickle.dumps(bad("a", 3))) == bad("a", 3)

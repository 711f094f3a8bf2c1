"""A toy encoder, a toy benchmark and a program for several processes that evaluates it.

``python -m torch.distributed.run --nproc-per-node 2 tests/evaluation/toy.py OUTPUT TASK...``; without torchrun it is
the run of one process that others are compared with.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from mmembed.counters import count, counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.crew import Crew, check_one_model
from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
from mmembed.files import fingerprint
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.processes import everyone, joined

PARTS = {"weights": "toy"}
CACHE_BYTES = 1 << 24


def encode(items, *, side):
    """Directions drawn by the words of a text, near for texts of common words; counts rows as a model does."""
    if any("unreadable" in item.text for item in items):
        raise InputError("text", expected="words", got="'unreadable'", remedy="leave it out")
    count("language_rows", len(items))
    rows = []
    for item in items:
        seeds = [int(fingerprint(word)[:8], 16) for word in item.text.split()]
        rows.append(sum(torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in seeds))
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_texts(folder, size, bad=()):
    """``size`` queries of two words and as many targets that share one of them; some cannot be read."""
    queries = [{"id": f"q{i}", "text": f"w{i} {'unreadable' if i in bad else f'v{i % 7}'}"} for i in range(size)]
    write_rows(folder / "queries.jsonl", queries)
    write_rows(folder / "corpus.jsonl", [{"id": f"d{i}", "text": f"w{i} u{i % 5}"} for i in range(size)])
    write_rows(folder / "relevance.jsonl", [{"query_id": f"q{i}", "targets": {f"d{i}": 1}} for i in range(size)])


def text_task(name):
    return Task(name=name, data=name, metric="mrr@10", blind=("shuffle_words",))


def killed_after(units):
    """The encoder of a process that is killed when it is asked for more than so many units."""

    def encode_until(items, *, side):
        nonlocal units
        if units == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        units -= 1
        return encode(items, side=side)

    return encode_until


def slow(seconds):
    """The encoder of a process that can be killed while it works."""

    def encode_slowly(items, *, side):
        time.sleep(seconds)
        return encode(items, side=side)

    return encode_slowly


def failing(rank):
    """The encoder of a process that one rank of the run fails, by an error that nobody expects."""

    def encode_or_fail(items, *, side):
        if int(os.environ.get("RANK", "0")) == int(rank):
            raise IndexError("list index out of range")
        # time for the other one to take a unit
        time.sleep(0.05)
        return encode(items, side=side)

    return encode_or_fail


def main(output, names, encoder=encode):
    benchmark = Benchmark("toy", {name: text_task(name) for name in names})
    with joined("cpu") as processes, counting() as work:
        check_one_model(PARTS | {"device": f"gpu {processes.rank}"} if "DIFFERENT" in os.environ else PARTS, processes)
        space = EmbeddingCache(output / "cache", max_bytes=CACHE_BYTES).space(PARTS)
        with Crew(encoder, space=space, processes=processes) as crew:
            if processes.first:
                evaluate_benchmark(Evaluation(benchmark, output.parent, output, "toy"), crew)
            else:
                crew.serve()
        rows = everyone(work["language_rows"])
        if processes.first:
            (output / "rows.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    encoders = {"KILL_AFTER": killed_after, "SLOW": slow, "FAILING_RANK": failing}
    asked = [make(float(os.environ[name])) for name, make in encoders.items() if name in os.environ]
    main(Path(sys.argv[1]), sys.argv[2:], *asked)

"""An evaluation that is killed at any moment goes on where it stood, and ends as one that never was."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from mmembed.index.embedding_cache import EmbeddingCache
from tests.evaluation import toy

pytestmark = pytest.mark.acceptance

KILLS = 5
ROWS = 3 * 3000
"""Queries, targets, and the queries with words shuffled."""


def start(output):
    environment = os.environ | {"SLOW": "0.15", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, toy.__file__, str(output), "texts"], env=environment)


def kept(output):
    return len(EmbeddingCache(output / "cache", max_bytes=toy.CACHE_BYTES).space(toy.PARTS))


def wait_for_more(output, before, process):
    while kept(output) == before and process.poll() is None:
        time.sleep(0.02)


def test_kills_at_random_moments_cost_nothing_that_was_embedded(tmp_path):
    toy.write_texts(tmp_path / "texts", 3000)
    output, whole = tmp_path / "out", tmp_path / "whole"
    output.mkdir()
    whole.mkdir()
    toy.main(whole, ["texts"])
    seen = [0]

    for number in range(KILLS):
        process = start(output)
        wait_for_more(output, seen[-1], process)
        time.sleep(random.Random(number).uniform(0, 0.4))
        process.kill()
        process.wait()
        seen.append(kept(output))
    assert start(output).wait() == 0

    assert seen == sorted(set(seen))
    assert seen[-1] + json.loads((output / "rows.json").read_text())[0] == ROWS == kept(output)
    ours, theirs = (json.loads((folder / "scores.json").read_text())["tasks"]["texts"] for folder in (output, whole))
    assert {key: ours[key] for key in ours if key != "seconds"} == {
        key: theirs[key] for key in theirs if key != "seconds"
    }

"""Grades as the published VLM2Vec evaluation pairs them, to reproduce graded nDCG that was published.

Its ``evaluate`` passes the labels of a query through ``list(set(labels))`` and then pairs them with their grades, which
kept the old order. The order of a set of strings depends on ``PYTHONHASHSEED`` and on the version of Python (3.11
changed the hash), so the same run scores differently from one process to the next.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mmembed.errors import InputError

MAX_HASH_SEED = 2**32 - 1
_SCRAMBLE = "import json, sys; print(json.dumps([list(set(labels)) for labels in json.load(sys.stdin)]))"


def permuted_grades(relevance: Sequence[Mapping[str, float]], hash_seed: int) -> list[dict[str, float]]:
    """Give the grades of each query to the targets that the published code gives them to.

    Asks one process of this Python, started with that ``PYTHONHASHSEED``, for the order of all sets.

    Args:
        relevance: grades of the relevant targets of each query, in the order of the published labels.
        hash_seed: ``PYTHONHASHSEED`` of the run to reproduce.

    Returns:
        For each query the same targets and the same grades, paired differently.

    Raises:
        InputError: a seed that Python does not take.
    """
    if not 0 <= hash_seed <= MAX_HASH_SEED:
        raise InputError(
            "ndcg_fault_seed",
            expected=f"a PYTHONHASHSEED, 0 to {MAX_HASH_SEED}",
            got=hash_seed,
            remedy="give the seed of the run to reproduce, or null for grades paired rightly",
        )
    # -P: no module of the working directory stands in for json
    answer = subprocess.run(
        [sys.executable, "-P", "-c", _SCRAMBLE],
        input=json.dumps([list(grades) for grades in relevance]),
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    orders = json.loads(answer.stdout)
    return [dict(zip(order, grades.values(), strict=True)) for order, grades in zip(orders, relevance, strict=True)]

"""One of several gloo ranks, started by ``test_ranks.py``: runs every case on its share of the rows.

Reads ``cases.pt`` of a folder and leaves ``rank{R}.pt`` there.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from mmembed.counters import counting
from mmembed.losses.candidates import Candidates
from mmembed.losses.gather import gather, total
from mmembed.losses.settings import Contrastive, LearnedTemperature, SourceRules


def run(case, rank):
    """Loss, and the gradients of the rows and of the learned temperatures."""
    numbers = case["ranks"][rank]
    chosen = torch.isin(case["owner"], torch.tensor(numbers, dtype=torch.long))
    place = torch.zeros(len(case["query_keys"]), dtype=torch.long)
    place[numbers] = torch.arange(len(numbers))
    candidates = Candidates(
        place[case["owner"][chosen]],
        case["positive"][chosen],
        case["query_keys"][numbers],
        case["target_keys"][chosen],
        case["classes"][numbers],
        case["sources"][numbers],
    )
    rules = {name: SourceRules(**rule) for name, rule in case["rules"].items()}
    settings = case["settings"] | {"learn": LearnedTemperature(case["settings"]["learn"])}
    objective = Contrastive(**settings).build(rules).double()
    queries = case["queries"][numbers].requires_grad_()
    targets = case["targets"][chosen].requires_grad_()
    with counting() as work:
        loss = objective(F.normalize(queries, dim=1), F.normalize(targets, dim=1), candidates)
        loss.share.backward()
    return {
        "work": dict(work),
        "targets": chosen.nonzero()[:, 0],
        "share": loss.share.detach(),
        "value": loss.value,
        "per_query": loss.per_query,
        "logs": loss.logs,
        "of_queries": queries.grad,
        "of_targets": targets.grad,
        "of_temperatures": [parameter.grad for parameter in objective.parameters()],
    }


def gathered(rank):
    """Uneven rows, no rows on one rank, whole numbers, and gradients that differ between the ranks."""
    rows = torch.arange(3.0 - rank)[:, None].repeat(1, 2).add(10 * rank).requires_grad_()
    with counting() as work:
        everyone = gather(rows)
        (everyone * (rank + 1) * torch.arange(5.0)[:, None]).sum().backward()
    return {
        "work": dict(work),
        "rows": everyone.detach(),
        "gradient": rows.grad,
        "none_on_one": gather(torch.ones(2 * rank, 3)),
        "none": gather(torch.ones(0, 3)),
        "counted": gather(torch.arange(rank + 1), [1, 2]),
        "total": total(rows.sum()),
    }


if __name__ == "__main__":
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    cases = torch.load(folder / "cases.pt", weights_only=True)
    found = {name: run(case, rank) for name, case in cases.items()}
    # its rows are counted for two
    of_two = {"gathered": gathered(rank)} if world == 2 else {}
    torch.save({"cases": found} | of_two, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
    # one process in a hundred aborts in gloo's own clean-up at exit, when everything is written
    os._exit(0)

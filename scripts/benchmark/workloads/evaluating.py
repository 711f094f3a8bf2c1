"""A retrieval task, embedded, ranked and scored."""

import random
from collections.abc import Mapping

import torch

from mmembed import Item
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.items import Image
from scripts.benchmark.bench import Bench
from scripts.benchmark.inputs import noise, words
from scripts.benchmark.measuring import Comparison, Run
from scripts.benchmark.models import options_in_words

TASK = Task("bench", "bench", "hit@1")


def task(bench: Bench) -> Comparison:
    """Texts that ask for pictures; the outcome compared are the embeddings, which rank alike up to rounding."""
    given = _drawn(*bench.size.task)
    ours, twin = bench.ours, bench.twin(bench.ours)

    def our_way() -> torch.Tensor:
        found = evaluate_task(TASK, given, Crew(ours.encode)).vectors
        return torch.cat([found.queries, found.targets])

    def plain_way() -> torch.Tensor:
        queries, targets = (twin.encode(list(side.values())) for side in (given.queries, given.corpus))
        order = (queries @ targets.T).argsort(dim=1, descending=True)
        names = list(given.corpus)
        hits = [names[order[i, 0]] in own for i, own in enumerate(given.relevance.values())]
        assert 0 <= sum(hits) / len(hits) <= 1
        return torch.cat([queries, targets])

    runs: tuple[Run, Run] = our_way, plain_way
    return Comparison(*runs, rows=len(given.queries) + len(given.corpus), parts=True, options=options_in_words())


def _drawn(queries: int, targets: int, pixels: int) -> RetrievalSet:
    rng = random.Random(3)
    asked: Mapping[str, Item] = {f"q{i}": Item.of(words(rng, rng.randint(4, 32))) for i in range(queries)}
    corpus = {f"t{i}": Item.of(Image(noise(pixels, i))) for i in range(targets)}
    return RetrievalSet(asked, corpus, {f"q{i}": {f"t{i % targets}": 1.0} for i in range(queries)})

"""SEARLE's optimisation-based textual inversion: a pseudo-word is fitted to one picture (arXiv:2303.15247, section 3).

Nothing it draws depends on a row or its batch: all pictures start from the same numbers and meet the same templates in
the same order, and what is minimised is a sum over pictures, so that no picture moves another's word.
"""

import json
import random
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.models.pseudo_words import PhraseComposer, replaced
from mmembed.models.settings import TextualInversion

Phrases = Mapping[str, SequenceOf[str]]
"""For each concept the phrases about it."""


class InversionComposer(PhraseComposer):
    """See :class:`mmembed.models.settings.TextualInversion`.

    Args:
        settings: of the optimisation.
        placeholder: token id of the placeholder.

    Raises:
        InputError: a file of phrases that cannot be used.
    """

    def __init__(self, settings: TextualInversion, placeholder: int) -> None:
        super().__init__(placeholder, settings.places)
        self.settings = settings
        self._kept: tuple[list[tuple[int, int]], Tensor] | None = None
        self.phrases = {} if settings.phrases is None else read_phrases(settings.phrases, settings.placeholder)

    def facts(self) -> dict[str, str]:
        """See :meth:`Pooler.facts`."""
        return {"phrases": fingerprint(json.dumps(self.phrases, sort_keys=True))} if self.phrases else {}

    def words(self, vectors: Tensor, backbone: Any) -> Tensor:
        """See :meth:`PhraseComposer.words`; a picture of several rows is inverted once, and no gradient leaves."""
        with torch.inference_mode(False), torch.enable_grad():
            distinct, places = torch.unique(vectors.detach().clone(), dim=0, return_inverse=True)
            return self._inverted(distinct, backbone)[places]

    def _inverted(self, vectors: Tensor, backbone: Any) -> Tensor:
        """The pseudo-words ``[N, W]`` of distinct vectors ``[N, D]``."""
        settings = self.settings
        draw = random.Random(settings.seed)
        word = self.start(len(vectors), backbone.word_width).to(vectors.device).requires_grad_()
        average = word.detach().clone()
        optimizer = torch.optim.AdamW([word], lr=settings.lr, weight_decay=settings.weight_decay)
        near = self.near(vectors, backbone)
        for _ in range(settings.steps):
            template = draw.choice(settings.templates)
            share = draw.random()
            drawn = [phrases[int(share * len(phrases))] for phrases in near]
            loss = self.loss(word, vectors, [template] * len(vectors), drawn, backbone)
            # of the word alone: the towers keep no gradient of this
            (word.grad,) = torch.autograd.grad(loss.sum(), [word])
            optimizer.step()
            average.lerp_(word.detach(), 1 - settings.ema)
        return average

    def start(self, rows: int, width: int) -> Tensor:
        """The numbers that the pseudo-words start from ``[rows, width]``, the same for each."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        return torch.normal(0.0, self.settings.init_std, (1, width), generator=generator).repeat(rows, 1)

    def loss(
        self,
        words: Tensor,
        vectors: Tensor,
        templates: SequenceOf[str],
        phrases: SequenceOf[tuple[str, str]],
        backbone: Any,
    ) -> Tensor:
        """What is minimised, for each picture ``[N]``.

        Args:
            words: ``[N, W]``.
            vectors: of the pictures ``[N, D]``.
            templates: a sentence for each picture, with ``{}`` in the word's place.
            phrases: for each picture a concept and a phrase about it; none leaves the second term out.
            backbone: the dual encoder.
        """
        spelt = f" {self.settings.placeholder} "
        told = self._vectors([template.replace("{}", spelt) for template in templates], words, backbone)
        losses = 1 - F.cosine_similarity(told, vectors)
        if not phrases:
            return losses
        ours = [phrase.replace(concept, spelt, 1) for concept, phrase in phrases]
        with torch.no_grad():
            theirs = backbone.words(backbone.texts([phrase for _, phrase in phrases]))[0]
        others = 1 - F.cosine_similarity(self._vectors(ours, words, backbone), theirs)
        first, second = self.settings.cos_weight, self.settings.phrase_weight
        return (first * losses + second * others) / (first + second)

    def _vectors(self, texts: SequenceOf[str], words: Tensor, backbone: Any) -> Tensor:
        sequence = backbone.texts(texts)
        rows = torch.arange(len(texts), device=words.device)
        vectors: Tensor = backbone.words(replaced(sequence, words, rows, self.placeholder, "first"))[0]
        return vectors

    @torch.no_grad()
    def near(self, vectors: Tensor, backbone: Any) -> list[list[tuple[str, str]]]:
        """For each picture the concepts most like it, each with every phrase about it; none without phrases."""
        if not self.phrases:
            return []
        concepts = list(self.phrases)
        kept = min(self.settings.concepts, len(concepts))
        nearest = (F.normalize(vectors, dim=-1) @ self.directions(backbone).T).topk(kept).indices.tolist()
        return [[(concepts[i], phrase) for i in row for phrase in self.phrases[concepts[i]]] for row in nearest]

    @torch.no_grad()
    def directions(self, backbone: Any) -> Tensor:
        """Those of all concepts ``[C, D]``, kept for as long as the towers' weights are the same."""
        state = [(value.data_ptr(), value._version) for value in backbone.model.parameters()]
        if self._kept is None or self._kept[0] != state:
            self._kept = state, torch.stack([self._ensembled(concept, backbone) for concept in self.phrases])
        return self._kept[1]

    def _ensembled(self, concept: str, backbone: Any) -> Tensor:
        """The mean direction of a concept's text vectors in all templates."""
        texts = backbone.texts([template.replace("{}", f" {concept} ") for template in self.settings.templates])
        mean: Tensor = F.normalize(backbone.words(texts)[0], dim=-1).mean(0)
        return F.normalize(mean, dim=-1)


def read_phrases(path: str | Path, placeholder: str = "$") -> dict[str, list[str]]:
    """Phrases about concepts.

    Args:
        path: a JSON file ``{concept: [phrase, ...]}``.
        placeholder: what is to stand in the concept's place, and nowhere else.

    Raises:
        InputError: no such file, another layout, or a phrase without its concept or with a placeholder of its own.
    """
    expected, remedy = "a JSON file {concept: [phrase with the concept in it, ...]}", "see TextualInversion.phrases"
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, expected=expected, got=str(error), remedy=remedy) from error
    if not isinstance(values, dict) or not values:
        raise InputError(path, expected=expected, got=type(values).__name__, remedy=remedy)
    for concept, phrases in values.items():
        if not isinstance(phrases, list) or not phrases or not all(isinstance(phrase, str) for phrase in phrases):
            raise InputError(f"{path}: {concept}", expected="a list of phrases", got=phrases, remedy=remedy)
        bad = next((phrase for phrase in phrases if concept not in phrase or placeholder in phrase), None)
        if bad is not None:
            raise InputError(
                f"{path}: {concept}",
                expected=f"phrases with the concept, which the pseudo-word replaces, and without '{placeholder}'",
                got=f"'{bad}'", remedy="leave such phrases out",
            )  # fmt: skip
    return values

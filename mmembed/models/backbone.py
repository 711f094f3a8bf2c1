"""What every backbone is: a picklable preprocessor and a module with the verbs vision, embed and run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.items import Item
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, Hidden, PatchMap, Row, Sequence
from mmembed.models.settings import ComposerSettings, LastToken, Lora, PoolerSettings, PromptStyle, Side, Speed


class Preprocessor(Protocol):
    """Item -> Row on the CPU, in a worker if wanted."""

    def __call__(self, item: Item, side: Side) -> Row:
        """Decode, render, tokenize and place one item."""

    def filler(self) -> Item:
        """A small item for which every part of the model runs."""


def _as_they_are(batch: Batch, values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class PatchEmbedding:
    """Where a tower turns pixels into its first states.

    Args:
        module: takes blocks of pixels and gives states; a hook on its output may add to them.
        width: numbers of a state.
        patch: pixels of a patch: frames, height, width.
        blocks: what of a number for each pixel of a batch ``[P, F, p, p]`` belongs to the blocks that the module takes
            ``[Q, F, p, p]``, where it takes others than the batch's.
    """

    module: nn.Module
    width: int
    patch: tuple[int, int, int]
    blocks: Callable[[Batch, Tensor], Tensor] = _as_they_are


class Backbone(nn.Module):
    """A model without its head; it reads what its family reads. Subclasses are adapters around an installed library.

    Attributes:
        model: the library's base model.
        preprocessor: picklable, CPU only.
        width: D, the size of a hidden state.
        usual_pooler: how its hidden states are pooled where the settings do not say.
        keeps_tokens: whether its sequences have tokens that a region encoder may fill.
        taps: layers of the tower whose states :meth:`vision` gives along; see :meth:`tap`.
        head: what a full model, with its head, calls the base model, and a dot; empty where there is no such model.
        speed: what is computed faster.
        unused: beginnings of the names of weights that no embedding depends on; they never train.
    """

    model: Any
    preprocessor: Preprocessor
    width: int
    usual_pooler: PoolerSettings = LastToken()
    unused: tuple[str, ...] = ()
    keeps_tokens: bool = False
    taps: tuple[int, ...] = ()
    head: str = "model."
    speed: Speed = Speed()

    @classmethod
    def open(
        cls,
        settings: Any,
        *,
        prompt: PromptStyle,
        texts: Iterable[str] | None = None,
        regions: RegionPreparer | None = None,
    ) -> Self:
        """Open the checkpoint the settings name, or make the scratch one, and load its adapter.

        Args:
            settings: of the family.
            prompt: how items are written.
            texts: what a scratch model's tokenizer is trained on.
            regions: how regions of pictures are told; None refuses them.
        """
        raise NotImplementedError

    @property
    def runs_twice_beyond(self) -> int | None:
        """Tokens beyond which a row runs apart from the shorter ones of its batch; None where none does."""
        return None

    def vision(self, batch: Batch) -> Features:
        """Encode the batch's distinct media."""
        raise NotImplementedError

    def embed(self, batch: Batch, features: Features) -> Sequence:
        """Token embeddings with the media's features in their slots."""
        raise NotImplementedError

    def patch_maps(self, batch: Batch, features: list[Tensor]) -> list[PatchMap | None]:
        """The features of each distinct medium, or one of its taps, as a map of the picture; None of a clip.

        Args:
            batch: the media.
            features: ``[v, C]`` each, as :meth:`vision` gives them.

        Raises:
            InputError: the family has no map of patches.
        """
        raise InputError(
            "regions", expected="a backbone whose tower gives features of patches where they lie in the picture",
            got=type(self).__name__, remedy="use Overlay, Crop, MaskChannel or TextRegions, or another backbone",
        )  # fmt: skip

    def tap(self, layers: tuple[int, ...]) -> list[int]:
        """Let :meth:`vision` give the states of these layers of the tower, too; 0 are its embeddings, -1 is the last.

        Returns:
            How many numbers a state of each has.

        Raises:
            InputError: a layer that the tower has not, or a family that does not give them.
        """
        raise InputError(
            "regions.layers", expected="a backbone that gives the states of its tower's layers",
            got=type(self).__name__, remedy="leave layers out",
        )  # fmt: skip

    def patch_embedding(self) -> PatchEmbedding:
        """Where the tower turns pixels into its first states.

        Raises:
            InputError: a family whose patches cannot be marked.
        """
        raise InputError(
            "regions", expected="a backbone whose tower embeds patches of pixels", got=type(self).__name__,
            remedy="use another region encoder or backbone",
        )  # fmt: skip

    def unpackable(self, longest: int = 0) -> str | None:
        """Why rows cannot pass the language model packed, in words; None where they can.

        Args:
            longest: tokens of the longest row.
        """
        return "its pictures and texts do not pass one language model"

    @property
    def pads_because(self) -> str | None:
        """Why rows of different lengths pass padded, in words; None where they are packed."""
        return "packing: off" if self.speed.packing == "off" else self.unpackable()

    def packs(self, longest: int) -> bool:
        """Whether rows of up to ``longest`` tokens pass the language model packed where they are."""
        return self.pads_because is None and self.unpackable(longest) is None

    def check_packing(self, longest: int = 0) -> None:
        """Refuse ``packing: on`` where rows cannot be packed.

        Raises:
            InputError: what stands in the way.
        """
        why = self.unpackable(longest) if self.speed.packing == "on" else None
        if why is not None:
            expected = "a model whose rows can be packed"
            raise InputError("speed.packing: on", expected=expected, got=why, remedy="use auto")

    def run(self, sequence: Sequence, layers: tuple[int, ...] = (), places: Tensor | None = None) -> Hidden:
        """The language model over the sequence; states after the final norm, and of the layers asked for.

        Args:
            sequence: the tokens.
            layers: whose states are wanted besides the last's, see :attr:`mmembed.models.poolers.Pooler.layers`.
            places: in each row the place of the one token that the last layer is wanted for ``[B]``; None is all.
        """
        raise NotImplementedError

    def check_pooler(self, settings: PoolerSettings) -> None:
        """Refuse a pooler that its hidden states are not made for.

        Raises:
            InputError: a composer, where hidden states are tokens.
        """
        if isinstance(getattr(settings, "pooler", settings), ComposerSettings):
            raise InputError(
                "pooler", expected="a pooler of tokens, for media and text are one sequence here",
                got=type(settings).__name__, remedy=f"{type(self.usual_pooler).__name__} is usual",
            )  # fmt: skip

    def check_lora(self, lora: Lora) -> None:
        """Refuse an adapter on layers that cannot carry one.

        Raises:
            InputError: the layer is named.
        """

    def token_id(self, word: str) -> int:
        """The id of a word that is one token.

        Raises:
            InputError: it is not one token of the tokenizer, or the model pools no tokens.
        """
        raise NotImplementedError

    @property
    def tower(self) -> nn.Module:
        """The part that :meth:`vision` runs."""
        raise NotImplementedError

    @property
    def trained_tokens(self) -> list[int]:
        """Ids whose rows of the embedding table an adapter trains along."""
        return []

    @property
    def tower_is_frozen(self) -> bool:
        """Whether no weight of the tower trains, so that its features may be computed once and kept."""
        return not any(p.requires_grad for p in self.tower.parameters())

    def facts(self) -> dict[str, str]:
        """What its vectors depend on besides weights and settings, by name: the checkpoint's config, its tokenizer."""
        raise NotImplementedError

    def save(self, directory: Path) -> None:
        """Write weights, config, tokenizer and preprocessing facts as a checkpoint the library can open."""
        raise NotImplementedError

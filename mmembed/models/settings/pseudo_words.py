"""Composers by pseudo-word: a picture becomes one word of a phrase, and the phrase's text vector is the query's.

No torch here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mmembed.errors import InputError
from mmembed.models.settings.composers import ComposerSettings

if TYPE_CHECKING:
    from mmembed.models.poolers import Pooler

Places = Literal["first", "all"]
"""Which placeholders of a text a pseudo-word stands at: SEARLE and Pic2Word fill the first, LinCIR all of them."""

TEMPLATES = (
    "This is a photo of a {}",
    "This photo contains a {}",
    "A photo of a {}",
    "This is an illustration of a {}",
    "This illustration contains a {}",
    "An illustrations of a {}",
    "This is a sketch of a {}",
    "This sketch contains a {}",
    "A sketch of a {}",
    "This is a diagram of a {}",
    "This diagram contains a {}",
    "A diagram of a {}",
    "A {}",
    "We see a {}",
    "{}",
    "We see a {} in this photo",
    "We see a {} in this image",
    "We see a {} in this illustration",
    "We see a {} photo",
    "We see a {} image",
    "We see a {} illustration",
    "{} photo",
    "{} image",
    "{} illustration",
)
"""The sentences that SEARLE's inversion describes a picture by (arXiv:2303.15247), which are PALAVRA's
(arXiv:2204.01694), "An illustrations" included."""


@dataclass(frozen=True)
class PseudoWordSettings(ComposerSettings):
    """An item of media and text is the text vector of its phrase, with a pseudo-word in the placeholder's place.

    The phrase is the prompt style's ``phrases.both``. The pseudo-word is made of the image vector, not scaled to unit
    length; of several pictures and clips it is made of their mean, as the backbone takes it. An item of media alone is
    its image vector, one of text alone its text vector.
    """

    abstract: ClassVar[bool] = True

    placeholder: str = "$"
    """The word of the phrase that the pseudo-word replaces; one token of the tokenizer."""
    places: Places = "first"
    """Whether it replaces the first placeholder of a text or all of them, those that the item's own text has, too."""

    def build_for(self, backbone: Any) -> "Pooler":
        """Make the composer.

        Args:
            backbone: a dual encoder, which knows how many numbers a word of its text tower has.

        Raises:
            InputError: a placeholder that is not one token, or that the prompt's phrase for both does not have.
        """
        token = backbone.token_id(self.placeholder)
        self._check_phrase(backbone.preprocessor.prompt.phrases.both)
        return self.make(backbone, token)

    def make(self, backbone: Any, token: int) -> "Pooler":
        """The composer of a dual encoder whose placeholder has the id ``token``."""
        raise NotImplementedError

    def _check_phrase(self, phrase: str) -> None:
        if self.placeholder not in phrase:
            raise InputError(
                "prompt.phrases.both", expected=f"a phrase with '{self.placeholder}', where the pseudo-word stands",
                got=f"'{phrase}'", remedy=f"e.g. 'a photo of {self.placeholder} that {{text}}'",
            )  # fmt: skip


@dataclass(frozen=True)
class Phi(PseudoWordSettings):
    """The mapping network of SEARLE (arXiv:2303.15247) and LinCIR (arXiv:2312.01998).

    Three linear layers with GELU and dropout between them. SEARLE fills the first placeholder, LinCIR ``all``.
    """

    hidden: int | None = None
    """Numbers of a hidden layer; None is four times those of an image vector."""
    dropout: float = 0.5
    """Share of the hidden numbers left out in training."""
    unit_input: bool = False
    """Scale the vectors it is given to unit length, in training and after it: LinCIR's ``--l2_normalize``."""

    def __post_init__(self) -> None:
        _check_network(self.hidden, self.dropout)

    def make(self, backbone: Any, token: int) -> "Pooler":
        """See :meth:`PseudoWordSettings.make`."""
        from mmembed.models.pseudo_words import PhiNetwork, PseudoWordComposer

        hidden = self.hidden or 4 * backbone.width
        network = PhiNetwork(
            backbone.width, hidden, backbone.word_width, self.dropout, unit_input=self.unit_input
        )  # fmt: skip
        return PseudoWordComposer(network, token, self.places)


@dataclass(frozen=True)
class Pic2Word(PseudoWordSettings):
    """The mapping network of Pic2Word (arXiv:2302.03084): three linear layers with dropout and ReLU between them."""

    placeholder: str = "*"
    """See :class:`PseudoWordSettings`."""
    hidden: int = 512
    """Numbers of a hidden layer."""
    dropout: float = 0.1
    """Share of the hidden numbers left out in training."""

    def __post_init__(self) -> None:
        _check_network(self.hidden, self.dropout)

    def make(self, backbone: Any, token: int) -> "Pooler":
        """See :meth:`PseudoWordSettings.make`."""
        from mmembed.models.pseudo_words import Pic2WordNetwork, PseudoWordComposer

        network = Pic2WordNetwork(backbone.width, self.hidden, backbone.word_width, self.dropout)
        return PseudoWordComposer(network, token, self.places)


@dataclass(frozen=True)
class TextualInversion(PseudoWordSettings):
    """SEARLE's optimisation of a pseudo-word for one picture, while it is embedded (OTI, arXiv:2303.15247).

    Nothing is learned beforehand, so there are no weights. A step minimises
    ``(cos_weight (1 - cos(t, v)) + phrase_weight (1 - cos(t', t''))) / (cos_weight + phrase_weight)``: t is the text
    vector of a template with the pseudo-word, v the image vector, t' and t'' those of a phrase about a concept that is
    like the picture, with the pseudo-word in the concept's place and as it is. What a step draws depends on the
    seed and the step alone, not on the rows beside it.
    """

    steps: int = 350
    """Steps of AdamW for a picture."""
    lr: float = 2e-2
    """Learning rate."""
    weight_decay: float = 0.01
    """Weight decay."""
    ema: float = 0.99
    """Decay of the moving average over the steps, which is the pseudo-word; 0 takes the last step's."""
    init_std: float = 0.02
    """Standard deviation of the numbers it starts from."""
    templates: tuple[str, ...] = TEMPLATES
    """Sentences about a picture, each with ``{}`` in the pseudo-word's place; a step draws one."""
    phrases: str | None = None
    """A JSON file ``{concept: [phrase with the concept in it, ...]}``; None leaves the second term out, which is SEARLE
    without its regularisation."""
    concepts: int = 15
    """The phrases of so many concepts most like the picture are drawn from."""
    cos_weight: float = 1.0
    """Weight of the first term."""
    phrase_weight: float = 0.5
    """Weight of the second term."""
    seed: int = 0
    """Seed of the start and of what the steps draw."""

    def __post_init__(self) -> None:
        for name in ("steps", "concepts"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"pooler.{name}", expected="at least 1", got=value, remedy="raise it")
        if self.cos_weight <= 0 or self.phrase_weight < 0:
            raise InputError(
                "pooler.cos_weight", expected="above 0, and phrase_weight not below 0",
                got=f"{self.cos_weight} and {self.phrase_weight}", remedy="1 and 0.5 are usual",
            )  # fmt: skip
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise InputError(
                "pooler.templates", expected="sentences with '{}' once", got=list(self.templates),
                remedy="leave them out for the published ones",
            )  # fmt: skip
        if not 0 <= self.ema < 1:
            raise InputError("pooler.ema", expected="from 0 to below 1", got=self.ema, remedy="0.99 is usual")

    def make(self, backbone: Any, token: int) -> "Pooler":
        """See :meth:`PseudoWordSettings.make`."""
        from mmembed.models.textual_inversion import InversionComposer

        return InversionComposer(self, token)


def _check_network(hidden: int | None, dropout: float) -> None:
    if hidden is not None and hidden < 1:
        raise InputError("pooler.hidden", expected="at least 1", got=hidden, remedy="raise it")
    if not 0 <= dropout < 1:
        raise InputError("pooler.dropout", expected="from 0 to below 1", got=dropout, remedy="0 leaves it out")

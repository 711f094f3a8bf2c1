"""Every family of backbones as a small random model, and what each can be asked."""

from dataclasses import dataclass, field, replace

import torch

from mmembed import Embedder, Image, Item, Video
from mmembed.media.settings import AllFrames, MediaSettings
from mmembed.models.sequence import collate
from mmembed.models.settings import (
    BackboneSettings,
    ChatPrompt,
    DualEncoder,
    EmbedderSettings,
    Llava,
    Lora,
    Mllama,
    Phi3V,
    PromptStyle,
    QwenVL,
    RawPrompt,
    Scratch,
    TextModel,
)
from tests.cases import LOUD, WORDS, draw

STILLS = [
    {"image": draw(84, 56), "text": "the same, but blue"},
    Item((Image(draw(56, 56)), " or ", Image(draw(112, 56)), " then ", Image(draw(56, 56)))),
    {"image": draw(56, 112)},
]
TEXTS = [
    "a red circle",
    {"text": "a much longer text about a red circle, a blue circle and no more", "instruction": "Find the picture."},
    "describe",
]
FRAMES = tuple(draw(56, 84, seed) for seed in range(4))
CLIPS = [
    {"video": Video(FRAMES), "text": "describe the clip"},
    {"video": Video(FRAMES[:3]), "image": draw(56, 112), "text": "both", "instruction": "Represent."},
]


@dataclass(frozen=True)
class Small:
    """One architecture: its settings class, and what its small model is made of and takes."""

    kind: type[BackboneSettings]
    text: dict = field(default_factory=lambda: LOUD)
    vision: dict = field(default_factory=lambda: LOUD)
    settings: dict = field(default_factory=dict)
    prompt: PromptStyle = field(default_factory=ChatPrompt)
    pictures: bool = True
    clips: bool = False
    policies: tuple[str, ...] = ("causal", "bidirectional", "prefix")
    targets: tuple[str, ...] | None = None
    """LoRA targets, where the usual list names no layer of it."""

    @property
    def items(self):
        """Items of every kind it takes."""
        made = [*TEXTS, *(STILLS if self.pictures else []), *(CLIPS if self.clips else [])]
        return [Item.of(item) for item in made]


SAME = {"media": MediaSettings(alpha="white", sampling=AllFrames())}
DEEP_TEXT, DEEP_VISION = LOUD | {"num_hidden_layers": 3}, LOUD | {"deepstack_visual_indexes": [0, 1]}

WORDS_ONLY = {"pictures": False, "vision": {}}
ENCODER = WORDS_ONLY | {"prompt": RawPrompt(), "policies": ("bidirectional",)}
DUAL = {
    "text": {}, "vision": {}, "settings": SAME, "prompt": RawPrompt(), "clips": True, "policies": (),
    "targets": ("c_fc", "c_proj"),
}  # fmt: skip
BERT_TARGETS = ("query", "key", "value", "dense")

FAMILIES: dict[str, Small] = {
    "qwen2_vl": Small(QwenVL, settings=SAME | {"min_side": 0}, clips=True),
    "qwen2_5_vl": Small(QwenVL, settings=SAME | {"min_side": 0}, clips=True),
    "qwen3_vl": Small(QwenVL, text=DEEP_TEXT, vision=DEEP_VISION, settings=SAME | {"min_side": 0}, clips=True),
    "phi3_v": Small(Phi3V, settings=SAME | {"num_crops": 4}, prompt=ChatPrompt(content="text")),
    "llava_next": Small(Llava, settings=SAME),
    "llava_onevision": Small(Llava, settings=SAME, clips=True),
    "llava": Small(Llava, settings=SAME),
    "mllama": Small(Mllama, settings=SAME),
    "qwen2": Small(TextModel, **WORDS_ONLY),
    "llama": Small(TextModel, **WORDS_ONLY),
    "mistral": Small(TextModel, **WORDS_ONLY),
    "qwen3": Small(TextModel, **WORDS_ONLY),
    "phi3": Small(TextModel, **WORDS_ONLY),
    "bert": Small(TextModel, targets=BERT_TARGETS, **ENCODER),
    "roberta": Small(TextModel, targets=BERT_TARGETS, **ENCODER),
    "gemma3_text": Small(TextModel, **WORDS_ONLY),
    "xlm-roberta": Small(TextModel, targets=BERT_TARGETS, **ENCODER),
    "distilbert": Small(TextModel, targets=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"), **ENCODER),
    "modernbert": Small(TextModel, targets=("Wqkv", "Wo", "Wi"), **ENCODER),
    "clip": Small(DualEncoder, **DUAL),
    "siglip": Small(DualEncoder, **DUAL),
    "coca": Small(DualEncoder, **DUAL),
    "timm": Small(DualEncoder, **DUAL),
}
LANGUAGE = [name for name in FAMILIES if FAMILIES[name].policies]
READS_PICTURES = [name for name in FAMILIES if FAMILIES[name].pictures]


def family_settings(architecture, *, lora=None, loud=True, prompt=None, **backbone):
    """Settings of a small random model of an architecture; one not loud has weights as small as the library's."""
    small = FAMILIES[architecture]
    text, vision = ({k: v for k, v in part.items() if loud or k not in LOUD} for part in (small.text, small.vision))
    scratch = Scratch(architecture, text=text, vision=vision)
    settings = small.kind(**({"scratch": scratch} | small.settings | backbone))
    return EmbedderSettings(settings, prompt or small.prompt, lora=lora)


def family_embedder(architecture, **choices):
    """A new small random embedder of an architecture."""
    return Embedder(family_settings(architecture, **choices), texts=WORDS)


def opened(architecture, directory, *, lora=None, **backbone):
    """A small model saved before, opened as a checkpoint, with an adapter if asked for."""
    small = FAMILIES[architecture]
    settings = small.kind(**({"path": str(directory)} | small.settings | backbone))
    return Embedder(EmbedderSettings(settings, small.prompt, lora=lora))


def lora_of(name):
    """A small adapter on the layers that the family has."""
    lora = Lora(r=4, alpha=8, dropout=0.0)
    targets = FAMILIES[name].targets
    return replace(lora, targets=targets) if targets else lora


def perturb(embedder):
    """Take the adapter from where training begins: with one factor zero the other has no gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in embedder.named_parameters():
            if "lora_B" in name:
                p.add_(torch.randn(p.shape, generator=generator) * 0.05)


def step(embedder, items):
    """One step of gradient descent; the names of the weights that may move, and of those that did."""
    before = {name: p.detach().clone() for name, p in embedder.named_parameters()}
    embedder.train()
    vectors = embedder(collate(embedder.prepare(items, "query")))
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], lr=1.0).step()
    moved = {name for name, p in embedder.named_parameters() if not torch.equal(p, before[name])}
    return {name for name, p in embedder.named_parameters() if p.requires_grad}, moved

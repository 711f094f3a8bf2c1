"""Our embeddings of the LLaVA family against transformers' own processors and forward, padding and all."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from mmembed import Image, Item, Video
from mmembed.models.backbones.llava.backbone import LlavaBackbone
from mmembed.models.settings import ChatPrompt, Llava
from tests.cases import draw
from tests.models.backbones.llava.small import make_llava, small_llava

MODELS = [
    ("llava_next", "mistral"),
    ("llava_next", "llama"),
    ("llava_next", "qwen2"),
    ("llava_onevision", "qwen2"),
    ("llava", "llama"),
    ("llava", "phi3"),
]
TOKENS = 16
TEXT = Item.of("a red circle, then a blue one")
ONE = Item.of({"image": draw(84, 56), "text": "the same"}, "Find it.")
WIDE = Item.of({"image": draw(150, 20), "text": "the same"})
SQUARE = Item.of({"image": draw(64, 64), "text": "large and square"})
THREE = Item((Image(draw(40, 90)), " or ", Image(draw(84, 84, 1)), Image(draw(28, 28)), "?"))
CLIP = Item.of({"video": Video(tuple(draw(40, 70, seed) for seed in range(3))), "text": "what happens?"})
BOTH = Item((Video(tuple(draw(28, 28, seed) for seed in range(3))), Image(draw(90, 30)), "alike?"))


def library_processor(embedder, resize):
    checkpoint = embedder.backbone.checkpoint
    config, facts = checkpoint.model.config, checkpoint.preprocessing
    if hasattr(config, "image_grid_pinpoints"):
        facts = facts | {"image_grid_pinpoints": config.image_grid_pinpoints}
    ending = "Pil" if resize == "pil" else ""
    images = getattr(transformers, facts["image_processor_type"] + ending).from_dict(facts)
    how = {"chat_template": checkpoint.tokenizer.chat_template}
    how["vision_feature_select_strategy"] = config.vision_feature_select_strategy
    if config.model_type == "llava_onevision":
        side = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
        mean_and_std = {"image_mean": checkpoint.image_mean, "image_std": checkpoint.image_std}
        clips = transformers.LlavaOnevisionVideoProcessor(size=side, **mean_and_std)
        how |= {"num_image_tokens": TOKENS, "vision_aspect_ratio": config.vision_aspect_ratio}
        return transformers.LlavaOnevisionProcessor(images, checkpoint.tokenizer, clips, **how)
    kind = transformers.LlavaNextProcessor if config.model_type == "llava_next" else transformers.LlavaProcessor
    how |= {"patch_size": config.vision_config.patch_size, "num_additional_image_tokens": 1}
    return kind(images, checkpoint.tokenizer, **how)


def prompt_of(processor, item):
    names = {Image: "image", Video: "video"}
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": names[type(part)]}
        for part in item.content
    ]
    said = [] if item.instruction is None else [("system", [{"type": "text", "text": item.instruction}])]
    messages = [{"role": role, "content": parts} for role, parts in [*said, ("user", content)]]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text.removeprefix("<s>")


def library_inputs(embedder, items, resize="pil"):
    """What the library's processor makes of the items, told which pictures belong together, padded on the right."""
    processor = library_processor(embedder, resize)
    pictures = [[part.source for part in item.media if isinstance(part, Image)] for item in items]
    clips = [list(part.source) for item in items for part in item.media if isinstance(part, Video)]
    media = {"images": pictures} if any(pictures) else {}
    if clips:
        media["videos"] = clips
    prompts = [prompt_of(processor, item) for item in items]
    return processor(text=prompts, **media, padding=True, padding_side="right", return_tensors="pt")


@torch.no_grad()
def library_embeddings(embedder, inputs):
    states = embedder.backbone.model(**inputs).last_hidden_state
    last = inputs["attention_mask"].sum(1) - 1
    return F.normalize(states[torch.arange(len(last)), last].float(), dim=-1)


def check(embedder, items, resize="pil"):
    inputs = library_inputs(embedder, items, resize)
    for row, ids, mask in zip(
        embedder.prepare(items, "query"), inputs["input_ids"], inputs["attention_mask"], strict=True
    ):
        assert row.ids.tolist() == ids[mask.bool()].tolist()
    theirs = library_embeddings(embedder, inputs)
    assert torch.allclose(embedder.encode(items), theirs, atol=1e-5, rtol=0)
    assert len(items) == 1 or torch.pdist(theirs).min() > 1e-3


@pytest.mark.parametrize(("architecture", "text"), MODELS)
def test_texts_and_pictures_embed_as_the_library_does(architecture, text):
    embedder = small_llava(architecture, text)

    for items in ([TEXT], [ONE], [WIDE], [SQUARE], [THREE]):
        check(embedder, items)
    check(embedder, [TEXT, ONE, WIDE, THREE, SQUARE])


@pytest.mark.parametrize("architecture", ["llava_next", "llava_onevision", "llava"])
def test_pictures_resized_by_torchvision_embed_as_the_library_does(architecture):
    check(small_llava(architecture, resize="torchvision"), [TEXT, ONE, THREE, WIDE], "torchvision")


def test_clips_embed_as_the_library_does():
    embedder = small_llava("llava_onevision", resize="torchvision")

    check(embedder, [CLIP], "torchvision")
    check(embedder, [TEXT, CLIP, BOTH, ONE, THREE], "torchvision")


@pytest.mark.parametrize("layers", [[-3, -2], [1, 3], -1], ids=str)
def test_any_layers_of_the_tower_are_read_as_the_library_does(layers):
    embedder = make_llava("llava_next").eval()
    config = embedder.backbone.model.config
    config.vision_feature_layer = layers
    count = 1 if isinstance(layers, int) else len(layers)
    checkpoint = embedder.backbone.checkpoint
    checkpoint.model.multi_modal_projector.linear_1 = torch.nn.Linear(32 * count, 64)
    embedder.backbone = LlavaBackbone(checkpoint, Llava(path="x"), ChatPrompt())

    check(embedder, [TEXT, ONE, THREE])
    unused = [int(name.split(".")[3]) for name in embedder.backbone.unused if ".layers." in name]
    assert unused == ([2] if layers == [-3, -2] else [])

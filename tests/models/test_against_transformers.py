"""Our embeddings of the Qwen-VL families against transformers' own processors and forward, padding and all."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from mmembed import Image, Item, Page, Video
from mmembed.models.sequence import collate

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
FACTOR = {"qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32}
PROCESSORS = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}
VIDEO_PROCESSORS = {
    "qwen2_vl": Qwen2VLVideoProcessor,
    "qwen2_5_vl": Qwen2VLVideoProcessor,
    "qwen3_vl": Qwen3VLVideoProcessor,
}
BUDGET = {"shortest_edge": 3136, "longest_edge": 1003520}


def library_processor(family, embedder):
    checkpoint = embedder.backbone.checkpoint
    vision = checkpoint.model.config.vision_config
    shape = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size, "temporal_patch_size": 2}
    facts = shape | {"image_mean": checkpoint.image_mean, "image_std": checkpoint.image_std, "size": dict(BUDGET)}
    videos = facts | {"size": {"shortest_edge": 1024, "longest_edge": 10**8}, "do_sample_frames": False}
    images = Qwen2VLImageProcessor(**facts)
    clips = VIDEO_PROCESSORS[family](**videos)
    template = checkpoint.tokenizer.chat_template
    return PROCESSORS[family](images, checkpoint.tokenizer, clips, chat_template=template)


def messages_of(item):
    content = []
    for part in item.content:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            content.append({"type": "video" if isinstance(part, Video) else "image"})
    head = (
        []
        if item.instruction is None
        else [{"role": "system", "content": [{"type": "text", "text": item.instruction}]}]
    )
    return [*head, {"role": "user", "content": content}]


def library_inputs(family, embedder, items):
    """What the library's processor makes of the items, padded on the right; a list of frames counts one a second."""
    processor = library_processor(family, embedder)
    prompts = [processor.apply_chat_template(messages_of(i), tokenize=False, add_generation_prompt=True) for i in items]
    images = [p.source for item in items for p in item.media if isinstance(p, Image | Page)]
    clips = [p.source for item in items for p in item.media if isinstance(p, Video)]
    metadata = [
        {"fps": 1.0, "total_num_frames": len(c), "frames_indices": list(range(len(c))), "duration": float(len(c))}
        for c in clips
    ]
    media = {"images": images or None}
    if clips:
        media |= {"videos": [list(clip) for clip in clips], "video_metadata": metadata}
    return processor(text=prompts, **media, padding=True, padding_side="right", return_tensors="pt")


@torch.no_grad()
def library_embeddings(family, embedder, items):
    inputs = library_inputs(family, embedder, items)
    kept = {k: v for k, v in inputs.items() if k != "video_metadata"}
    stock = copy.deepcopy(embedder.backbone.model)
    stock.visual.config._attn_implementation = "sdpa"
    states = stock(**kept, use_cache=False).last_hidden_state
    last = inputs["attention_mask"].sum(1) - 1
    return F.normalize(states[torch.arange(len(items)), last].float(), dim=-1)


@pytest.fixture
def cases(picture):
    """Items by what they hold; sides are multiples of the family's token, which needs no resize."""

    def make(family):
        f = FACTOR[family]
        frames = tuple(picture(3 * f, 2 * f, seed) for seed in range(5))
        three = [Image(picture(w * f, h * f)) for w, h in ((2, 2), (4, 2), (2, 3))]
        return {
            "text": [Item.of("a red circle, then a blue one")],
            "image": [Item.of({"image": picture(3 * f, 2 * f), "text": "the same"}, "Find it.")],
            "images": [Item((three[0], " or ", three[1], three[2], three[0], "?"))],
            "video": [Item.of({"video": Video(frames), "text": "what happens?"})],
            "even video": [Item.of({"video": Video(frames[:4])}, "Describe.")],
            "two videos": [Item((Video(frames), " before ", Video(frames[1:4])))],
            "mixed": [
                Item.of("a red circle", "Find the picture that shows it."),
                Item.of({"image": picture(3 * f, 2 * f), "text": "the same"}),
                Item.of("x"),
                Item.of({"video": Video(frames[:2]), "image": picture(2 * f, 5 * f), "text": "both"}),
                Item.of({"video": Video(frames), "text": "what happens?"}, "Watch."),
            ],
        }  # fmt: skip

    return make


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", ["text", "image", "images", "video", "even video", "two videos", "mixed"])
def test_embeddings_tokens_and_positions_equal_the_librarys(family, case, cases, scratch_embedder):
    embedder, items = scratch_embedder(family), cases(family)[case]
    rows = embedder.prepare(items, "query")
    inputs = library_inputs(family, embedder, items)
    model = embedder.backbone.model
    grids = {k: inputs.get(k) for k in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts") if k in inputs}

    positions, _ = model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], attention_mask=inputs["attention_mask"], **grids
    )

    for i, row in enumerate(rows):
        real = inputs["attention_mask"][i].bool()
        assert row.ids.tolist() == inputs["input_ids"][i][real].tolist()
        assert row.positions.tolist() == positions[:, i, real].tolist()
    assert torch.allclose(embedder.encode(items), library_embeddings(family, embedder, items), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_embeddings_compared_differ_from_each_other(family, cases, scratch_embedder):
    vectors = scratch_embedder(family).encode(cases(family)["mixed"])

    similarity = vectors @ vectors.T - 2 * torch.eye(len(vectors))

    assert similarity.max() < 0.999


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(100, 140), (333, 217), (64, 900)])
def test_torchvision_resize_equals_the_librarys_processor(family, size, picture, scratch_embedder):
    embedder = scratch_embedder(family)
    item = Item.of({"image": picture(*size)})

    ours = embedder.backbone.normalise(collate(embedder.prepare([item], "query")).pixels)

    # the library repeats a still picture in time
    ours = ours.expand(-1, -1, 2, -1, -1).flatten(1)
    assert torch.allclose(ours, library_inputs(family, embedder, [item])["pixel_values"], atol=1e-5, rtol=0)

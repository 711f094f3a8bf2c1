"""Small random copies of published checkpoints, in a cache as the Hub's client fills it."""

import shutil
from dataclasses import replace
from functools import partial

import torch
from safetensors.torch import load_file
from tokenizers.processors import ByteLevel

from mmembed import Embedder, Video
from mmembed.models.profiles import load_released
from mmembed.models.settings import LastToken, Lora, Sam2Regions, Scratch
from tests.cases import GOLDEN, WORDS, draw
from tests.families import FAMILIES
from tests.models.backbones.dual_encoder.transformers_layout import write_clip, write_siglip
from tests.models.backbones.llava.released_layout import write_llava_qwen

COMMIT = "d" * 40
INSTRUCTION, TEXT = "Find the picture.", "a red dress"
CASES = {
    "text query": ({"text": TEXT, "instruction": INSTRUCTION}, "query"),
    "text target": ({"text": TEXT}, "target"),
    "picture query": ({"image": draw(84, 56), "instruction": INSTRUCTION}, "query"),
    "picture target": ({"image": draw(84, 56)}, "target"),
    "composed query": ({"image": draw(84, 56), "text": TEXT, "instruction": INSTRUCTION}, "query"),
    "clip target": ({"video": Video(tuple(draw(56, 84, seed) for seed in range(4)))}, "target"),
    "told target": ({"text": TEXT, "instruction": "Represent the answer:"}, "target"),
}
"""What every profile is asked to write."""
OPTIONAL = {"clip target", "told target"}
"""What some are not asked: clips where the model reads none, targets with an instruction where none was published."""


LAYOUTS = {
    "clip": write_clip,
    "siglip": write_siglip,
    "llava_qwen": write_llava_qwen,
    "instructcir_llava_phi35": partial(shutil.copytree, GOLDEN / "cir/instructcir/ckpt"),
}
"""What writes a small checkpoint in a layout that no model here is saved in."""
IN_TORCHS_FILES = ("TIGER-Lab/VLM2Vec-LoRA", "TIGER-Lab/VLM2Vec-Qwen2VL-2B", "TIGER-Lab/VLM2Vec-Qwen2VL-7B")
"""Adapters that were released as torch's own files."""


def scratch_of(row, settings):
    """A small random model of the row's architecture that embeds as the settings say."""
    architecture = "clip" if row.architecture == "open_clip" else row.architecture
    small = FAMILIES[architecture]
    scratch = Scratch(architecture, text=small.text, vision=small.vision)
    backbone = replace(
        settings.backbone, path=None, revision=None, adapter=None, adapter_revision=None, scratch=scratch
    )
    model = Embedder(replace(settings, backbone=backbone, pooler_weights=None, regions_weights=None), texts=WORDS)
    if architecture == "llava_onevision":
        # Qwen2's tokenizer begins a text with nothing, the small LLaVA's with a token
        model.backbone.checkpoint.tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    return model


def put(cache, name, folder, commit=COMMIT):
    """Lay a folder into the cache as the snapshot of a Hub repository's main branch."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def publish(cache, name, folder):
    """Put a small copy of a published checkpoint into the cache: its weights whole, or its base's and an adapter's."""
    row, settings = load_released(name)
    if row.architecture in LAYOUTS:
        LAYOUTS[row.architecture](folder / "whole")
        put(cache, name, folder / "whole", row.revision or COMMIT)
        return
    model = scratch_of(row, as_released(settings))
    model.save(folder / "whole")
    (folder / "whole/embedder.yaml").unlink()
    if isinstance(settings.regions, Sam2Regions):
        publish_sam(cache, settings, folder / "whole")
    if row.base is None:
        put(cache, name, folder / "whole", row.revision or COMMIT)
        return
    put(cache, row.base, folder / "whole", row.base_revision or COMMIT)
    backbone = replace(settings.backbone, path=str(folder / "whole"))
    Embedder(replace(settings, backbone=backbone, lora=Lora(r=2, alpha=4))).save(folder / "adapted")
    adapter = folder / "adapted/adapter"
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str((folder / "whole").resolve()), row.base))
    if name in IN_TORCHS_FILES:
        torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
        (adapter / "adapter_model.safetensors").unlink()
    put(cache, name, adapter, row.revision or COMMIT)


def as_released(settings):
    """The settings without what opening adds: tokens that the released tokenizer lacks, and a region encoder."""
    if getattr(settings.backbone, "special_tokens", None) is not None:
        settings = replace(settings, backbone=replace(settings.backbone, special_tokens=None), pooler=LastToken())
    return replace(settings, lora=None, regions=None)


def publish_sam(cache, settings, folder):
    """Put a small SAM 2 into the cache under its name, and a connector of VIRTUE's beside the model."""
    virtue = GOLDEN / "virtue"
    put(cache, settings.regions.checkpoint, virtue / "sam2_tiny/native")
    parts = {"sam2_reducer": {}, "sam2vlm_layer": {}}
    for name, weight in load_file(virtue / "connector.safetensors").items():
        part, _, key = name.partition(".")
        parts[part][key] = weight
    torch.save(parts, folder / settings.regions_weights)

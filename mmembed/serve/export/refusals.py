"""What a target cannot hold, in words: refused before anything is written, or left out where that was asked for."""

from typing import Any, Literal, TypeAlias

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.models.plain.processors import opened_with
from mmembed.models.plain.writing import plain_backbone, reads_pictures
from mmembed.models.settings import ChatPrompt, Clips, LastToken, MeanToken, RawPrompt

Target: TypeAlias = Literal["st", "hf", "vllm"]
NAMES: dict[Target, str] = {"st": "sentence-transformers", "hf": "transformers", "vllm": "vLLM"}

# vLLM ran it up to 0.10.2, before its second engine
_NOT_SERVED = ("mllama",)
_HERE = "use the model here, e.g. by scripts/embed.py"


def check_target(model: Embedder, to: Target, *, without_regions: bool = False, without_video: bool = False) -> None:
    """Refuse a model that a target would run otherwise than here.

    Args:
        model: what is exported.
        to: where to.
        without_regions: the region encoder may stay behind.
        without_video: the reading of clips may stay behind.

    Raises:
        InputError: the part is named, and what can be done.
    """
    backbone = plain_backbone(model.backbone)
    _check_prompt(model, to)
    _check_regions(model, to, without_regions)
    _check_pooler(model, to)
    _check_attention(model, to)
    if reads_pictures(model.backbone):
        _check_pictures(model, to, without_video)
    if to == "vllm" and backbone.model.config.model_type in _NOT_SERVED:
        _refuse(to, "model", "a model that it runs", "Llama-3.2-Vision, which vLLM ran up to 0.10.2", "--to st")


def left_unsaid(model: Embedder, to: Target, *, video: bool) -> list[str]:
    """What stays different though the vectors that were compared are equal, for those who use the export.

    Args:
        model: what is exported.
        to: where to.
        video: whether it reads clips there.
    """
    settings: Any = model.settings.backbone
    notes = []
    if reads_pictures(model.backbone):
        notes += _about_pictures(settings, video)
    if to == "hf":
        notes.append("transformers gives hidden states: pooling, normalisation and the prompt are yours to do")
        how = ", ".join(f"{name}={value!r}" for name, value in opened_with(plain_backbone(model.backbone)).items())
        if how:
            notes.append(f"open its processor by AutoProcessor.from_pretrained(DIR, {how}), for Pillow's resize")
        if getattr(settings, "positions", "mrope") == "sequential":
            notes.append("give the model position_ids of one counter, [3, B, L]: its own are of three (M-RoPE)")
    if to == "vllm":
        notes.append(
            "vLLM itself was not run: its rule for pooling was followed, the vectors are those of the same folder"
        )
        if video:
            notes.append("vLLM picks the frames of a clip, and writes their times, by its own rules")
            if plain_backbone(model.backbone).model.config.model_type == "qwen3_vl":
                notes.append("vLLM may leave out the pair of tokens around all frames of a clip, by its version")
    if to != "hf" and reads_pictures(model.backbone):
        notes.append("give the fields of an item in the order video, image, text: their order is that of the prompt")
    rope = getattr(model.backbone.language_config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope" and settings.longrope_by == "row":
        notes.append("a batch with one long row rotates by the long list of LongRoPE there; here each row by its own")
    return notes


def takes_video(model: Embedder) -> bool:
    """Whether a model reads clips."""
    backbone: Any = model.backbone
    return reads_pictures(backbone) and bool(backbone.preprocessor.takes_video)


def _check_regions(model: Embedder, to: Target, without: bool) -> None:
    if model.settings.regions is not None and not without:
        kind = type(model.settings.regions).__name__
        _refuse(
            to, "regions", "a model without a region encoder: none of its modules tells regions", kind,
            "--without-regions exports the rest, which embeds whole pictures",
        )  # fmt: skip


def _check_prompt(model: Embedder, to: Target) -> None:
    if to != "hf" and not isinstance(model.settings.prompt, RawPrompt | ChatPrompt):
        kind = type(model.settings.prompt).__name__
        _refuse(to, "prompt", "a prompt that is written alike for queries and targets", kind, _HERE)


def _check_pooler(model: Embedder, to: Target) -> None:
    pooler: Any = model.settings.pooler
    if not isinstance(pooler, LastToken | MeanToken):
        _refuse(to, "pooler", "LastToken or MeanToken: it has no module for others", type(pooler).__name__, _HERE)
    if isinstance(pooler, MeanToken) and (pooler.drop_on_query or pooler.drop_on_target):
        got = f"a mean without {' and '.join(dict.fromkeys((*pooler.drop_on_query, *pooler.drop_on_target)))}"
        _refuse(to, "pooler", "a mean over all tokens, whatever the side", got, "drop nothing, or use the model here")


def _check_attention(model: Embedder, to: Target) -> None:
    settings: Any = model.backbone.settings
    own = "bidirectional" if getattr(model.backbone, "is_encoder", False) else "causal"
    if settings.attention_policy != own:
        _refuse(to, "attention_policy", f"the model's own attention, {own}", settings.attention_policy, _HERE)


def _check_pictures(model: Embedder, to: Target, without_video: bool) -> None:
    settings: Any = model.settings.backbone
    if getattr(settings, "positions", "mrope") == "sequential" and to != "hf":
        _refuse(
            to, "positions", "mrope: transformers 5 and vLLM count three positions for media, whatever the prompt",
            "sequential",
            "use the model here, export --to hf and give position_ids, or train and open it with positions: mrope",
        )  # fmt: skip
    if getattr(settings, "first_resize", None) is not None:
        _refuse(to, "first_resize", "one resize: its processors have no other", settings.first_resize, _HERE)
    if settings.media.square is not None:
        got = f"squares of {settings.media.square}"
        _refuse(to, "media.square", "pictures of their own shape: its processors make no squares", got, _HERE)
    if not getattr(settings, "deepstack", True):
        _refuse(to, "deepstack", "the features of the tower's inner layers, which it adds", "deepstack: false", _HERE)
    if takes_video(model) and not without_video:
        _check_clips(model, to)


def _check_clips(model: Embedder, to: Target) -> None:
    settings: Any = model.settings.backbone
    clips = getattr(settings, "clips", Clips())
    kind = plain_backbone(model.backbone).model.config.model_type
    without = "--without-video exports the rest; or use the model here"
    if (clips.resize or settings.resize) == "pil":
        _refuse(
            to, "resize", "torchvision for the frames of clips: transformers resizes them by nothing else", "pil",
            "--without-video exports the rest, with Pillow's resize for pictures; or train with resize: torchvision",
        )  # fmt: skip
    if clips.as_pictures:
        _refuse(to, "clips", "clips that stay clips: a template cannot take one apart", "as_pictures", without)
    if clips.stills_factor is not None:
        got = f"stills_factor: {clips.stills_factor}"
        _refuse(to, "clips", "one resize of a frame: its processors have no other", got, without)
    if clips.total_pixels is not None and kind != "qwen3_vl":
        _refuse(to, "clips", "a bound for each frame: its processor has no such bound of all", "total_pixels", without)
    if to == "vllm" and kind == "qwen3_vl" and (isinstance(model.settings.prompt, RawPrompt) or not clips.outer_tokens):
        # transformers puts the frames in the place of the one token, vLLM in that of all three
        _refuse(
            to, "clips", "<|vision_start|><|video_pad|><|vision_end|> in the prompt, which it looks for",
            "a prompt with <|video_pad|> alone", f"{without}, or --to st",
        )  # fmt: skip


def _about_pictures(settings: Any, clips: bool) -> list[str]:
    notes = []
    if settings.media.alpha == "white":
        notes.append("transparency is dropped there; here a picture is laid on white")
    if not settings.media.exif:
        notes.append("a picture is turned as its EXIF orientation says there; here it is not")
    if hasattr(settings, "thin"):
        notes.append("a picture over 200 times as long as wide is refused there; here it is made a square or a strip")
    least = getattr(settings, "min_side", 0)
    if least:
        notes.append(
            f"a picture with a side under {least} pixels is scaled by its shape there; here it becomes 56 x 56"
        )
    if clips:
        notes.append(
            "all frames given are taken there: thin a clip out before, and give its frames with video_metadata"
        )
    return notes


def _refuse(to: Target, what: str, expected: str, got: object, remedy: str) -> None:
    raise InputError(f"export to {NAMES[to]}: {what}", expected=expected, got=got, remedy=remedy)

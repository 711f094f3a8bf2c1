"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL on the installed transformers."""

from mmembed.models.backbones.qwen_vl.backbone import QwenVLBackbone, open_qwen_vl

__all__ = ["QwenVLBackbone", "open_qwen_vl"]

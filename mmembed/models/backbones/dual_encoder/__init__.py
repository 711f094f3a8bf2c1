"""Dual encoders on the installed open_clip and timm: CLIP, SigLIP, CoCa."""

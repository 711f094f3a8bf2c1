"""Phi-3-vision and Phi-3.5-vision, made of the installed transformers' Phi-3 and CLIP."""

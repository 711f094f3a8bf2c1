"""Models of text alone: decoders and encoders."""

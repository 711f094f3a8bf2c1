"""Miniatures: every source drawn small in its publisher's layout, so that everything runs without downloads."""

"""How Sphinx builds these pages: Markdown through MyST."""

project = "mmembed"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "mmembed"
exclude_patterns = ["_build"]

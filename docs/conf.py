"""The site of these pages: `make docs` builds it, and a warning is an error."""

import smoothcert

project = "smoothcert"
author = "the smoothcert authors"
project_copyright = "the smoothcert authors"
version = release = smoothcert.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# pages link to infra/, which has its own: built from the root of the repository (make docs)
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "infra/README.md",
    "infra/*/README.md",
]
html_theme = "furo"
html_title = f"smoothcert {release}"
html_show_sourcelink = False
# anchors as on GitHub, where these pages are read too
myst_heading_anchors = 4
autodoc_typehints = "description"
autodoc_member_order = "bysource"

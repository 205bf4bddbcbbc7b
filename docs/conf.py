"""Sphinx configuration: `make docs` builds with warnings as errors, without any network.

With SCSET_TOOLS_DOCS_ONLINE=1 (Read the Docs, continuous integration) names of other libraries become links.
"""

import os
import sys
import warnings
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

info = metadata("scset-tools")
project = "scset_tools"
author = "The scset_tools developers"
copyright = f"{datetime.now():%Y}, {author}"
version = release = info["Version"]
repository_url = dict(entry.split(", ") for entry in info.get_all("Project-URL") or []).get("Source")

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
    *sorted(path.stem for path in (HERE / "extensions").glob("*.py")),
]
exclude_patterns = ["_build", "user_guide/gallery/*.md", "**.ipynb_checkpoints", "jupyter_execute"]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

nitpicky = True
# What annotations call by its bare name because it is imported for type checkers alone (extensions/public_names.py).
bare_names = {
    "AnnData": "anndata.AnnData",
    "AnnOrMuData": "scvi.AnnOrMuData",  # in what models inherit from scvi-tools
    "Axes": "matplotlib.axes.Axes",
    "Callable": "collections.abc.Callable",
    "Colormap": "matplotlib.colors.Colormap",
    "Figure": "matplotlib.figure.Figure",
    "HubModel": "scvi.hub.HubModel",
    "Iterator": "collections.abc.Iterator",
    "Mapping": "collections.abc.Mapping",
    "MuData": "mudata.MuData",
    "Path": "pathlib.Path",
    "Sequence": "collections.abc.Sequence",
    "Tensor": "torch.Tensor",
    "nn.Module": "torch.nn.Module",
    "np.ndarray": "numpy.ndarray",
    "pd.DataFrame": "pandas.DataFrame",
    "pd.Series": "pandas.Series",
}
# Names of other libraries: links where there is a network, plain text elsewhere, never a broken build.
nitpick_ignore = [("py:class", name) for name in bare_names]
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"~?(abc|anndata|collections|dask|dataclasses|enum|h5py|lightning|matplotlib|mudata|np|numpy|os|ot|pandas"
        r"|pathlib|pd|pytorch_lightning|scanpy|scipy|scvi|seaborn|sklearn|sns|sksurv|statsmodels|torch|torchmetrics|types"
        r"|typing|umap|zarr)\..*",
    ),
    (r"py:(class|obj|data)", r"Any|None|bool|bytes|dict|float|int|list|object|str|tuple|type|Literal|Self"),
    (r"py:(exc|class)", r"[A-Z]\w+(Error|Warning)|Exception"),
]

autosummary_generate = True
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
default_role = "literal"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_custom_sections = ["Writes"]
napoleon_use_rtype = True
napoleon_use_param = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Tutorials run when the pages are built, once per change of their code (docs/_build/notebooks keeps what they gave):
# SCSET_TOOLS_DOCS_EXECUTE=off builds without them, =force runs them whatever changed, as when the library has.
nb_execution_mode = os.environ.get("SCSET_TOOLS_DOCS_EXECUTE", "cache")
if nb_execution_mode == "off":
    suppress_warnings = ["myst-nb.lexer"]  # the language of a notebook is known only once it has run
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_excludepatterns = ["user_guide/**", "api/**"]
nb_execution_in_temp = True  # what a tutorial saves is not for the repository
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # notes of training libraries
nb_merge_streams = True

intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    if os.environ.get("SCSET_TOOLS_DOCS_ONLINE")
    else {}
)

html_math_renderer = "mathml"  # extensions/mathml.py: pages are read without any network too
html_theme = "sphinx_book_theme"
toc_object_entries_show_parents = (
    "hide"  # the side bar of a page has no room for the name of the class before each method
)
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_title = project
# the header of each page has the search; the theme would put a second one into the sidebar
html_sidebars = {"**": ["navbar-logo.html", "icon-links.html", "sbt-sidebar-nav.html"]}
# The side bar opens the part that the page belongs to: all of the interface beside each of three hundred pages is a third of the time of a build.
html_theme_options = {"path_to_docs": "docs/", "collapse_navbar": True, "max_navbar_depth": 3}
if repository_url:
    html_theme_options |= {"repository_url": repository_url, "use_repository_button": True}

# Importing the package for autodoc imports others; what they warn of at import is no fault of these pages.
warnings.filterwarnings("ignore", category=DeprecationWarning)
